"""Training of the bundled nano checkpoints. Not needed by users of the package, its tests or its builds."""
