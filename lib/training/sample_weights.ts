import { CellcamError } from '../errors';
import { invalidArgument, type NdArray, requireInteger, requireNdArray, typedArrayKind } from '../options';

/** Rows with each class. */
function countRows(labels: NdArray<Uint8Array>): number[] {
  const [rows, classes] = labels.shape as [number, number];
  const counts = new Array<number>(classes).fill(0);
  for (let row = 0; row < rows; row++) {
    for (let c = 0; c < classes; c++) counts[c]! += labels.data[row * classes + c]! === 0 ? 0 : 1;
  }
  return counts;
}

/** The third largest class weight, equal ones counted apart; below three classes nothing is cut. */
function automaticCap(classWeights: number[]): number {
  return [...classWeights].sort((a, b) => (a < b ? 1 : a > b ? -1 : 0))[2] ?? Infinity;
}

function classesOf(labels: NdArray<Uint8Array>, row: number): number[] {
  const classes = labels.shape[1]!;
  const own = labels.data.subarray(row * classes, (row + 1) * classes);
  return [...own.keys()].filter((c) => own[c] !== 0);
}

function checkList(list: number[], labels: NdArray<Uint8Array>, row: number): number[] {
  const classes = labels.shape[1]!;
  for (const label of list) {
    requireInteger(label, `lists[${row}]`, 0, classes - 1);
    if (labels.data[row * classes + label] === 0) {
      throw new CellcamError(
        'ERR_INVALID_ARG',
        `Expected lists[${row}] to name only labels of its row but it names ${label}`,
      );
    }
  }
  return list;
}

function meanWeight(list: number[], classWeights: number[], row: number): number {
  if (list.length === 0) {
    throw new CellcamError(
      'ERR_INVALID_ARG',
      `Expected at least one label in each row of labels but row ${row} has none`,
    );
  }
  let sum = 0;
  for (const label of list) sum += classWeights[label]!;
  return sum / list.length;
}

/**
 * How often each image should be drawn: a class weighs 1 / (images with it), an image the mean of its labels' weights.
 * @param labels 0/1, shape (rows, classes), of the training rows only
 * @param o.lists the labels of each row as the table lists them; a label listed twice counts twice
 * @param o.cap 'auto' (default) cuts weights at the third largest class weight; null cuts nothing
 * @returns one weight a row, not normalised
 * @throws CellcamError ERR_INVALID_ARG, also for a row without a label
 */
export function sampleWeights(
  labels: NdArray<Uint8Array>,
  o: { lists?: number[][]; cap?: 'auto' | null } = {},
): Float64Array {
  const rows = requireNdArray(labels, 'labels', ['Uint8Array'], ['rows', 'classes']).shape[0]!;
  const { lists, cap = 'auto' } = o;
  if (cap !== 'auto' && cap !== null) throw invalidArgument("'auto' or null", 'cap', cap);
  if (lists !== undefined && (!Array.isArray(lists) || lists.length !== rows)) {
    throw invalidArgument(`${rows} lists of labels`, 'lists', lists);
  }
  const classWeights = countRows(labels).map((count) => 1 / count);
  const limit = cap === null ? Infinity : automaticCap(classWeights);
  return Float64Array.from({ length: rows }, (_, row) => {
    const list = lists ? checkList(lists[row]!, labels, row) : classesOf(labels, row);
    return Math.min(meanWeight(list, classWeights, row), limit);
  });
}

export const SAMPLERS = ['balanced', 'sqrt', 'none'] as const;
/** `balanced`: by `sampleWeights`, with replacement; `sqrt`: by their square roots; `none`: every row once, in random order. */
export type SamplerName = (typeof SAMPLERS)[number];

/**
 * The rows of an epoch, as many as there are, in the order in which they are seen.
 * @param table 0/1 labels of the training rows, (rows, classes), and the labels of each row as the table lists them
 * @returns a function of the epoch's seed, so that the weights are worked out once
 * @throws CellcamError ERR_INVALID_ARG
 */
export function sampler(
  name: SamplerName,
  table: { labels: NdArray<Uint8Array>; lists: number[][] },
): (seed: bigint) => Int32Array {
  const rows = table.labels.shape[0]!;
  if (name === 'none') return (seed) => shuffledOrder(rows, seed);
  const weights = sampleWeights(table.labels, { lists: table.lists });
  const chances = name === 'sqrt' ? weights.map(Math.sqrt) : weights;
  return (seed) => drawSamples(chances, rows, seed);
}

/** The upper 32 bits of a product of two 32-bit numbers. */
function multiplyHigh(a: number, b: number): number {
  const aLow = a & 0xffff;
  const aHigh = a >>> 16;
  const bLow = b & 0xffff;
  const bHigh = b >>> 16;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const carried = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 65536) + Math.floor(carried / 65536)) >>> 0;
}

/** SplitMix64 (Steele, Lea and Flood 2014) on pairs of 32-bit words, as BigInt is many times slower. */
export class SplitMix64 {
  private stateHigh: number;
  private stateLow: number;
  private high = 0;
  private low = 0;

  constructor(seed: bigint | number) {
    const bits = requireSeed(seed);
    this.stateHigh = Number(bits >> 32n);
    this.stateLow = Number(bits & 0xffffffffn);
  }

  /** A uniform integer from 0 to n - 1, exactly even: words outside are drawn again. */
  below(n: number): number {
    const mask = n <= 1 ? 0 : 0xffffffff >>> Math.clz32(n - 1);
    for (;;) {
      this.advance();
      const word = (this.low & mask) >>> 0;
      if (word < n) return word;
    }
  }

  /** A uniform double in [0, 1) with 53 random bits. */
  fraction(): number {
    this.advance();
    return ((this.high >>> 0) * 2097152 + (this.low >>> 11)) / 9007199254740992;
  }

  private advance(): void {
    const low = this.stateLow + 0x7f4a7c15;
    this.stateHigh = (this.stateHigh + 0x9e3779b9 + (low > 0xffffffff ? 1 : 0)) >>> 0;
    this.stateLow = low >>> 0;
    this.high = this.stateHigh;
    this.low = this.stateLow;
    this.mix(30, 0xbf58476d, 0x1ce4e5b9);
    this.mix(27, 0x94d049bb, 0x133111eb);
    this.foldDown(31);
  }

  private mix(shift: number, high: number, low: number): void {
    this.foldDown(shift);
    const top = Math.imul(this.high, low) + Math.imul(this.low, high) + multiplyHigh(this.low >>> 0, low);
    this.low = Math.imul(this.low, low) >>> 0;
    this.high = top >>> 0;
  }

  /** value ^= value >> shift, over all 64 bits. */
  private foldDown(shift: number): void {
    this.low = (this.low ^ ((this.low >>> shift) | (this.high << (32 - shift)))) >>> 0;
    this.high = (this.high ^ (this.high >>> shift)) >>> 0;
  }
}

function requireSeed(seed: unknown): bigint {
  if (typeof seed === 'bigint' && seed >= 0n && seed < 1n << 64n) return seed;
  if (typeof seed === 'bigint') throw invalidArgument('a 64-bit seed of at least 0', 'seed', seed);
  return BigInt(requireInteger(seed, 'seed', 0));
}

function sumOfWeights(weights: Float64Array): number {
  if (typedArrayKind(weights) !== 'Float64Array') throw invalidArgument('a Float64Array', 'weights', weights);
  let sum = 0;
  for (let i = 0; i < weights.length; i++) {
    const weight = weights[i]!;
    if (!(weight >= 0 && weight < Infinity)) {
      throw invalidArgument('a finite weight of at least 0', `weights[${i}]`, weight);
    }
    sum += weight;
  }
  if (sum > 0 && sum < Infinity) return sum;
  throw new CellcamError('ERR_INVALID_ARG', `Expected weights with a positive, finite sum but their sum is ${sum}`);
}

/** Row i is kept with probability `keep[i]`, else `other[i]` is taken: the alias method (Walker 1977, Vose 1991). */
function aliasTable(weights: Float64Array, sum: number): { keep: Float64Array; other: Int32Array } {
  const n = weights.length;
  const keep = weights.map((weight) => (weight / sum) * n);
  const other = Int32Array.from({ length: n }, (_, i) => i);
  const light = new Int32Array(n);
  const heavy = new Int32Array(n);
  let lights = 0;
  let heavies = 0;
  for (let i = 0; i < n; i++) {
    if (keep[i]! < 1) light[lights++] = i;
    else heavy[heavies++] = i;
  }
  while (lights > 0 && heavies > 0) {
    const small = light[--lights]!;
    const big = heavy[heavies - 1]!;
    other[small] = big;
    keep[big] = keep[big]! - (1 - keep[small]!);
    if (keep[big] < 1) light[lights++] = heavy[--heavies]!;
  }
  return { keep, other };
}

/**
 * Draws rows with replacement, in proportion to their weights; constant time a draw.
 * @param weights one a row, finite, at least 0, not all 0
 * @param count how many draws
 * @param seed 0 to 2^64 - 1; the same seed gives the same draws on every machine
 * @returns row numbers
 * @throws CellcamError ERR_INVALID_ARG
 */
export function drawSamples(weights: Float64Array, count: number, seed: bigint | number): Int32Array {
  const { keep, other } = aliasTable(weights, sumOfWeights(weights));
  const draws = new Int32Array(requireInteger(count, 'count', 0, 0x7fffffff));
  const random = new SplitMix64(seed);
  for (let i = 0; i < draws.length; i++) {
    const row = random.below(keep.length);
    draws[i] = random.fraction() < keep[row]! ? row : other[row]!;
  }
  return draws;
}

/**
 * 0 to count - 1 in random order (Fisher and Yates).
 * @param seed 0 to 2^64 - 1; the same seed gives the same order on every machine
 * @throws CellcamError ERR_INVALID_ARG
 */
export function shuffledOrder(count: number, seed: bigint | number): Int32Array {
  const order = Int32Array.from({ length: requireInteger(count, 'count', 0, 0x7fffffff) }, (_, i) => i);
  const random = new SplitMix64(seed);
  for (let i = count - 1; i > 0; i--) {
    const j = random.below(i + 1);
    const kept = order[i]!;
    order[i] = order[j]!;
    order[j] = kept;
  }
  return order;
}
