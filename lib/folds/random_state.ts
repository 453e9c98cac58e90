import { invalidArgument, requireInteger } from '../options';

const SIZE = 624;
const SHIFT = 397;
const MAX_UINT32 = 0xffffffff;

/** The smallest 2^b - 1 that is at least `max`. */
function maskFor(max: number): number {
  return max === 0 ? 0 : MAX_UINT32 >>> Math.clz32(max);
}

/**
 * NumPy's legacy `RandomState`: MT19937 (Matsumoto and Nishimura 1998), seeded with one 32-bit number. Every draw
 * equals NumPy's, so that folds made here are the folds made there.
 */
export class RandomState {
  private readonly state = new Uint32Array(SIZE);
  private next = SIZE;

  /**
   * @param seed integer from 0 to 2^32 - 1
   * @throws CellcamError ERR_INVALID_ARG
   */
  constructor(seed: number) {
    const state = this.state;
    state[0] = requireInteger(seed, 'seed', 0, MAX_UINT32);
    for (let i = 1; i < SIZE; i++) {
      const before = state[i - 1]!;
      state[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
    }
  }

  /** The next raw word: an integer from 0 to 2^32 - 1. */
  uint32(): number {
    if (this.next === SIZE) this.twist();
    let word = this.state[this.next++]!;
    word ^= word >>> 11;
    word ^= (word << 7) & 0x9d2c5680;
    word ^= (word << 15) & 0xefc60000;
    return (word ^ (word >>> 18)) >>> 0;
  }

  /** A uniform integer from 0 to `max` (at most 2^32 - 1); nothing is drawn when `max` is 0. */
  interval(max: number): number {
    const mask = maskFor(requireInteger(max, 'max', 0, MAX_UINT32));
    if (mask === 0) return 0;
    for (;;) {
      const word = (this.uint32() & mask) >>> 0;
      if (word <= max) return word;
    }
  }

  /** A uniform integer from 0 to n - 1. */
  choice(n: number): number {
    return this.interval(requireInteger(n, 'n', 1, MAX_UINT32 + 1) - 1);
  }

  /** Shuffles in place. */
  shuffle(values: Int32Array | number[]): void {
    if (typeof values !== 'object' || values === null) throw invalidArgument('an array', 'values', values);
    for (let i = values.length - 1; i > 0; i--) {
      const j = this.interval(i);
      const kept = values[i]!;
      values[i] = values[j]!;
      values[j] = kept;
    }
  }

  /** 0 to n - 1 in random order. */
  permutation(n: number): Int32Array {
    const order = Int32Array.from({ length: requireInteger(n, 'n', 0, 0x7fffffff) }, (_, i) => i);
    this.shuffle(order);
    return order;
  }

  /** A uniform double in [0, 1) with 53 random bits. */
  randomSample(): number {
    const high = this.uint32() >>> 5;
    const low = this.uint32() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }

  private twist(): void {
    const state = this.state;
    for (let i = 0; i < SIZE; i++) {
      const mixed = (state[i]! & 0x80000000) | (state[(i + 1) % SIZE]! & 0x7fffffff);
      state[i] = state[(i + SHIFT) % SIZE]! ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
    }
    this.next = 0;
  }
}
