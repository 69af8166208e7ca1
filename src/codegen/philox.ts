/** C text of the counter-based random numbers that draws start from; the same integers as `ir/ops/random.ts`. */

export const philoxFunctions = `/* Philox 4x32-10 (Salmon et al. 2011). */
static __attribute__((unused)) void philox(const uint32_t *counter, uint32_t key0, uint32_t key1, uint32_t *out) {
  uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  for (int round = 0; round < 10; round++) {
    const uint64_t a = (uint64_t)0xd2511f53u * c0, b = (uint64_t)0xcd9e8d57u * c2;
    c0 = (uint32_t)(b >> 32) ^ c1 ^ key0; c1 = (uint32_t)b; c2 = (uint32_t)(a >> 32) ^ c3 ^ key1; c3 = (uint32_t)a;
    key0 += 0x9e3779b9u; key1 += 0xbb67ae85u;
  }
  out[0] = c0; out[1] = c1; out[2] = c2; out[3] = c3;
}
static __attribute__((unused)) double uniform(uint32_t word) { return ((double)word + 0.5) * 0x1p-32; }
`;
