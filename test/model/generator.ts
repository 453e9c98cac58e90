// The generator of the reference cases: splitmix64 keyed by FNV-1a of a name, in pairs of 32-bit words.

// Looked up once: in jest every use of a global goes through the test's own environment, a hundred times slower.
const { floor, imul } = Math;

interface Word {
  high: number;
  low: number;
}

function toWord(value: bigint): Word {
  return { high: Number(BigInt.asUintN(64, value) >> 32n), low: Number(BigInt.asUintN(32, value)) };
}

function multiply(a: Word, b: Word): Word {
  const [a0, a1, b0, b1] = [a.low & 0xffff, a.low >>> 16, b.low & 0xffff, b.low >>> 16];
  const middle = a1 * b0 + ((a0 * b0) >>> 16);
  const other = a0 * b1 + (middle & 0xffff);
  const carry = a1 * b1 + floor(middle / 65536) + floor(other / 65536);
  const high = (carry + imul(a.high, b.low) + imul(a.low, b.high)) >>> 0;
  return { high, low: imul(a.low, b.low) >>> 0 };
}

function add(a: Word, b: Word): Word {
  const low = a.low + b.low;
  return { high: (a.high + b.high + (low > 0xffffffff ? 1 : 0)) >>> 0, low: low >>> 0 };
}

function shiftXor(a: Word, n: number): Word {
  const low = ((a.low >>> n) | (a.high << (32 - n))) >>> 0;
  return { high: (a.high ^ (a.high >>> n)) >>> 0, low: (a.low ^ low) >>> 0 };
}

const STEP = toWord(0x9e3779b97f4a7c15n);
const [FIRST, SECOND] = [toWord(0xbf58476d1ce4e5b9n), toWord(0x94d049bb133111ebn)];

/** n numbers in [0, 1). */
export function uniforms(key: string, seed: number, n: number): Float64Array {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(key)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  let state = toWord(hash ^ BigInt.asUintN(64, BigInt(seed) * 0x9e3779b97f4a7c15n));
  const out = new Float64Array(n);
  for (let i = 0; i < n; i++) {
    state = add(state, STEP);
    let z = multiply(shiftXor(state, 30), FIRST);
    z = multiply(shiftXor(z, 27), SECOND);
    z = shiftXor(z, 31);
    out[i] = (z.high * 2 ** 21 + (z.low >>> 11)) * 2 ** -53;
  }
  return out;
}

/** `from` of typed arrays goes through an iterator, which takes far longer. */
function mapped(u: Float64Array, value: (u: number, i: number) => number): Float32Array {
  const out = new Float32Array(u.length);
  for (let i = 0; i < out.length; i++) out[i] = value(u[i]!, i);
  return out;
}

/** A tensor of a state dict, as the reference cases fill it. */
export function fillTensor(key: string, shape: number[], seed: number): Float32Array {
  const n = shape.reduce((a, b) => a * b, 1);
  const u = uniforms(key, seed, n);
  if (shape.length >= 2) {
    const bound = Math.sqrt(3 / (n / shape[0]!));
    return mapped(u, (v) => (2 * v - 1) * bound);
  }
  if (key.endsWith('.running_mean') || key.endsWith('.bias')) return mapped(u, (v) => 0.2 * (v - 0.5));
  return mapped(u, (v) => 0.5 + v);
}

const MEAN = [0.485, 0.456, 0.406, 0.485];
const STD = [0.229, 0.224, 0.225, 0.229];

/** Normalised images (N, 4, H, W). */
export function fillImages(shape: [number, number, number, number], seed: number): Float32Array {
  const [n, c, h, w] = shape;
  const u = uniforms('input', seed, n * c * h * w);
  const gain = uniforms('input_gain', seed, n * c * 64);
  return mapped(u, (v, i) => {
    const [x, y, plane] = [i % w, floor(i / w) % h, floor(i / (w * h))];
    const g = gain[plane * 64 + floor((8 * y) / h) * 8 + floor((8 * x) / w)]!;
    return (v * g - MEAN[plane % c]!) / STD[plane % c]!;
  });
}
