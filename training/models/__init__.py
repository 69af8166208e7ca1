"""Our PyTorch forwards of the three architectures, with parameter names equal to the published key layouts."""
