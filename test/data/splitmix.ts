const MASK = (1n << 64n) - 1n;

/** The reference cases' numbers: splitmix64 seeded by the key's FNV-1a hash, uniform in [0, 1). */
export function uniform(key: string, seed: number, count: number): Float64Array {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(key)) hash = ((hash ^ BigInt(byte)) * 0x100000001b3n) & MASK;
  let state = hash ^ ((BigInt(seed) * 0x9e3779b97f4a7c15n) & MASK);
  return Float64Array.from({ length: count }, () => {
    state = (state + 0x9e3779b97f4a7c15n) & MASK;
    let z = state;
    z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
    z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
    z ^= z >> 31n;
    return Number(z >> 11n) * 2 ** -53;
  });
}
