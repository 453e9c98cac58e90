import { HPA, type DatasetSpec } from '../data/dataset_spec';
import { CellcamError } from '../errors';
import {
  invalidArgument,
  type NdArray,
  requireInteger,
  requireNdArray,
  requireNumber,
  typedArrayKind,
} from '../options';
import { cellBoxes } from './centers';

const { fround } = Math;
/** Keeps empty maps at 0 and the division defined. */
const EPSILON = fround(1e-5);

/** What one cell shows. */
export interface CellPrediction {
  cellId: number;
  /** Middle of the cell's box, in pixels of the original image. */
  center: [x: number, y: number];
  /** One a class, 0 to 1; 0 for classes that the cell does not show. */
  probabilities: Float32Array;
}

export interface IntersectionOptions {
  /** Of the original image, in pixels. */
  originalSize: [height: number, width: number];
  spec?: DatasetSpec;
  /** Classes up to this image-level probability are left out. Default .01. */
  classThreshold?: number;
  /** The quantile that stands for a map's height in a cell and in the image. Default .99. */
  quantile?: number;
  /** A cell shows a class where confidence / probability is above this. Default .02. */
  scoreThreshold?: number;
  /** Only so many classes stay in an image: those with the highest confidences. Default 18. */
  maxClasses?: number;
}

type Settings = Required<Omit<IntersectionOptions, 'originalSize'>>;

/** Pixels of all cells, cell by cell; cell k has `pixels` from `starts[k]` to `starts[k + 1]`. */
interface CellPixels {
  ids: number[];
  starts: number[];
  pixels: Uint32Array;
}

/** A pair of class and cell that is kept. */
interface Hit {
  classId: number;
  cell: number;
  confidence: number;
}

function requireSettings(o: IntersectionOptions): Settings {
  return {
    spec: o.spec ?? HPA,
    classThreshold: requireNumber(o.classThreshold ?? 0.01, 'classThreshold', 0, 1),
    quantile: requireNumber(o.quantile ?? 0.99, 'quantile', 0, 1),
    scoreThreshold: requireNumber(o.scoreThreshold ?? 0.02, 'scoreThreshold', 0, 1),
    maxClasses: requireInteger(o.maxClasses ?? 18, 'maxClasses', 1),
  };
}

function requireFinite(values: Float32Array, name: string): void {
  const wrong = values.findIndex((v) => !Number.isFinite(v));
  if (wrong >= 0) throw invalidArgument('a finite number', `${name}[${wrong}]`, values[wrong]);
}

function requireMaps(maps: unknown, classes: number | string): [classes: number, h: number, w: number] {
  const { data, shape } = requireNdArray(maps, 'maps', ['Float32Array'], [classes, 'h', 'w']);
  if (data.length === 0) throw invalidArgument('at least one value', 'maps', data);
  requireFinite(data, 'maps.data');
  return shape as [number, number, number];
}

/**
 * Class activation maps from a network's maps, each class by itself: relu(relu(x) - 1e-5) / (max + 1e-5), in float32.
 * @param maps shape (classes, h, w), before relu
 * @returns same shape, 0 to 1
 * @throws CellcamError ERR_INVALID_ARG
 */
export function makeCam(maps: NdArray<Float32Array>): NdArray<Float32Array> {
  const [classes, h, w] = requireMaps(maps, 'classes');
  const data = new Float32Array(maps.data.length);
  for (let c = 0; c < classes; c++) {
    writeCam(maps.data.subarray(c * h * w, (c + 1) * h * w), data.subarray(c * h * w, (c + 1) * h * w));
  }
  return { data, shape: [classes, h, w] };
}

function writeCam(map: Float32Array, cam: Float32Array): void {
  let peak = 0;
  for (let i = 0; i < map.length; i++) if (map[i]! > peak) peak = map[i]!;
  const divisor = fround(peak + EPSILON);
  for (let i = 0; i < map.length; i++) {
    const above = fround(map[i]! - EPSILON);
    cam[i] = above > 0 ? above / divisor : 0;
  }
}

/** Where output i of an axis enlarged from n to size lies between `near[i]` and `near[i] + 1`. */
function samplePositions(n: number, size: number): { near: Int32Array; share: Float64Array } {
  const near = new Int32Array(size);
  const share = new Float64Array(size);
  for (let i = 0; i < size && n > 1; i++) {
    const at = ((i + 0.5) * n) / size - 0.5;
    // Mirrored about the centre of the edge pixel, not clamped.
    const position = at < 0 ? -at : at > n - 1 ? 2 * (n - 1) - at : at;
    near[i] = Math.min(Math.floor(position), n - 2);
    share[i] = position - near[i]!;
  }
  return { near, share };
}

/** Enlarges maps of one size to one size, as scikit-image's `resize` does: linear, mirrored, in double, then float32. */
class Enlarger {
  private readonly down: { near: Int32Array; share: Float64Array };
  private readonly across: { near: Int32Array; share: Float64Array };
  /** Every source row at full width. */
  private readonly wide: Float64Array;

  constructor(
    private readonly h: number,
    private readonly w: number,
    private readonly height: number,
    private readonly width: number,
  ) {
    this.down = samplePositions(h, height);
    this.across = samplePositions(w, width);
    this.wide = new Float64Array(h * width);
  }

  /** No clipping to the input's range: float32 rounding of these mixtures cannot leave it. */
  run(cam: Float32Array, out: Float32Array): void {
    this.widen(cam);
    const { wide, width } = this;
    const next = this.h > 1 ? width : 0;
    for (let y = 0, o = 0; y < this.height; y++) {
      const share = this.down.share[y]!;
      const from = this.down.near[y]! * width;
      for (let i = from; i < from + width; i++) out[o++] = wide[i]! * (1 - share) + wide[i + next]! * share;
    }
  }

  private widen(cam: Float32Array): void {
    const { w, wide, across } = this;
    const next = w > 1 ? 1 : 0;
    for (let y = 0, o = 0; y < this.h; y++) {
      for (let x = 0; x < this.width; x++) {
        const from = y * w + across.near[x]!;
        const share = across.share[x]!;
        wide[o++] = cam[from]! * (1 - share) + cam[from + next]! * share;
      }
    }
  }
}

/**
 * Enlarges one map as scikit-image's `resize` does (order 1, reflect, anti-aliasing without effect when enlarging).
 * @param cam h * w values
 * @param from [h, w]
 * @param to [H, W], each at least as large
 * @param out takes H * W values
 * @returns out
 * @throws CellcamError ERR_INVALID_ARG
 */
export function resizeCam(
  cam: Float32Array,
  from: [number, number],
  to: [number, number],
  out = new Float32Array(to[0] * to[1]),
): Float32Array {
  from.forEach((n, i) => requireInteger(n, `from[${i}]`, 1));
  to.forEach((n, i) => requireInteger(n, `to[${i}]`, from[i]!));
  requireNdArray({ data: cam, shape: from }, 'cam', ['Float32Array'], ['h', 'w']);
  requireNdArray({ data: out, shape: to }, 'out', ['Float32Array'], ['H', 'W']);
  new Enlarger(...from, ...to).run(cam, out);
  return out;
}

/** A counting sort: the image is walked twice, however many cells there are. */
function sortPixels(cells: Uint16Array): CellPixels {
  let last = 0;
  for (let i = 0; i < cells.length; i++) if (cells[i]! > last) last = cells[i]!;
  const next = new Uint32Array(last + 1);
  for (let i = 0; i < cells.length; i++) next[cells[i]!]! += 1;
  const ids: number[] = [];
  const starts = [0];
  for (let id = 1; id <= last; id++) {
    const count = next[id]!;
    next[id] = starts.at(-1)!;
    if (count === 0) continue;
    ids.push(id);
    starts.push(starts.at(-1)! + count);
  }
  const pixels = new Uint32Array(starts.at(-1)!);
  for (let i = 0; i < cells.length; i++) if (cells[i] !== 0) pixels[next[cells[i]!]!++] = i;
  return { ids, starts, pixels };
}

function gather(values: Float32Array, pixels: Uint32Array, out: Float32Array): void {
  for (let i = 0; i < pixels.length; i++) out[i] = values[pixels[i]!]!;
}

/** Puts the k-th smallest of values[from..to] at k, nothing larger before it and nothing smaller after it. */
function select(values: Float32Array, from: number, to: number, k: number): void {
  let seed = 1;
  while (from < to) {
    // A random pivot: smooth maps are full of runs on which fixed places do badly.
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const pivot = values[from + (seed % (to - from + 1))]!;
    let i = from;
    let j = to;
    while (i <= j) {
      while (values[i]! < pivot) i++;
      while (values[j]! > pivot) j--;
      if (i > j) break;
      const kept = values[i]!;
      values[i++] = values[j]!;
      values[j--] = kept;
    }
    if (k <= j) to = j;
    else if (k >= i) from = i;
    else return;
  }
}

/**
 * The linear quantile of values[start] to values[end - 1], rounded in float32 as numpy does.
 * @param values finite; those of the range are reordered
 * @param start less than end
 * @param quantile 0 to 1
 */
export function quantileOf(values: Float32Array, start: number, end: number, quantile: number): number {
  const place = (end - start - 1) * quantile;
  const lower = start + Math.floor(place);
  const share = place - Math.floor(place);
  select(values, start, end - 1, lower);
  const a = values[lower]!;
  let b = lower + 1 < end ? Infinity : a;
  for (let i = lower + 1; i < end; i++) if (values[i]! < b) b = values[i]!;
  const step = fround(b - a);
  return share >= 0.5 ? fround(b - fround(step * fround(1 - share))) : fround(a + fround(step * fround(share)));
}

/** 1 / (1 + exp(-x)) in float32. */
function sigmoids(logits: Float32Array): Float32Array {
  return logits.map((x) => 1 / fround(1 + fround(Math.exp(-x))));
}

/** NaN where both the cell and the image have no activation. */
function confidenceOf(cell: number, probability: number, total: number): number {
  const confidence = fround(fround(cell * probability) / total);
  return confidence > probability ? probability : confidence;
}

/** All kept pairs, classes ascending, then cells; and whether some pair was refused. */
function findHits(
  probabilities: Float32Array,
  maps: NdArray<Float32Array>,
  cells: NdArray<Uint16Array>,
  { ids, starts, pixels }: CellPixels,
  settings: Settings,
): { hits: Hit[]; refused: boolean } {
  const [, h, w] = maps.shape as [number, number, number];
  const [height, width] = cells.shape as [number, number];
  const enlarger = new Enlarger(h, w, height, width);
  const cam = new Float32Array(h * w);
  const enlarged = new Float32Array(height * width);
  const gathered = new Float32Array(pixels.length);
  const hits: Hit[] = [];
  let refused = false;
  probabilities.forEach((probability, classId) => {
    if (!(probability > fround(settings.classThreshold))) return;
    writeCam(maps.data.subarray(classId * h * w, (classId + 1) * h * w), cam);
    enlarger.run(cam, enlarged);
    gather(enlarged, pixels, gathered);
    const total = quantileOf(enlarged, 0, enlarged.length, settings.quantile);
    ids.forEach((_, cell) => {
      const own = quantileOf(gathered, starts[cell]!, starts[cell + 1]!, settings.quantile);
      const confidence = confidenceOf(own, probability, total);
      if (fround(confidence / probability) > fround(settings.scoreThreshold)) hits.push({ classId, cell, confidence });
      else refused = true;
    });
  });
  return { hits, refused };
}

/** The classes with the highest confidences; equal ones in ascending order. */
function bestClasses(hits: Hit[], maxClasses: number): Set<number> {
  const peaks = new Map<number, number>();
  for (const { classId, confidence } of hits) peaks.set(classId, Math.max(peaks.get(classId) ?? 0, confidence));
  const sorted = [...peaks].sort(([, a], [, b]) => b - a);
  return new Set(sorted.slice(0, maxClasses).map(([classId]) => classId));
}

/** Cells without a class are Negative: how surely depends on whether any cell has one. */
function fillNegative(cells: Float32Array[], negative: number, confidence: number): void {
  for (const own of cells) if (own.every((p) => p === 0)) own[negative] = confidence;
}

function negativeConfidence(probabilities: Float32Array, negative: number, hits: Hit[], refused: boolean): number {
  if (hits.length > 0) return probabilities[negative]!;
  const highest = probabilities.reduce((a, b) => Math.max(a, b));
  return refused ? highest : fround(1 - highest);
}

function requireInputs(
  p: { logits: Float32Array; maps: NdArray<Float32Array> },
  cells: NdArray<Uint16Array>,
  spec: DatasetSpec,
): void {
  const classes = spec.classes.length;
  if (typedArrayKind(p?.logits) !== 'Float32Array' || p.logits.length !== classes) {
    throw invalidArgument(`a Float32Array of ${classes} values`, 'logits', p?.logits);
  }
  requireFinite(p.logits, 'logits');
  const [, h, w] = requireMaps(p.maps, classes);
  const [height, width] = requireNdArray(cells, 'cells', ['Uint16Array'], ['H', 'W']).shape as [number, number];
  if (height >= h && width >= w) return;
  const message = `Expected cells of at least (${h}, ${w}), the size of maps, but received shape (${height}, ${width})`;
  throw new CellcamError('ERR_INVALID_ARG', message);
}

/**
 * Shares the image's classes out to its cells. Every class above the threshold is weighed by its activation map: the
 * cell's .99 quantile over the image's. Cells without any class become Negative, if the data set has such a class.
 * @param p.logits one a class
 * @param p.maps shape (classes, h, w), before relu
 * @param cells cell numbers, 0 is background; shape (H, W), at least (h, w): maps are enlarged to it
 * @returns one a cell, in ascending order of cellId; none where there are no cells
 * @throws CellcamError ERR_INVALID_ARG, also for logits or maps that are not finite
 */
export function intersectCams(
  p: { logits: Float32Array; maps: NdArray<Float32Array> },
  cells: NdArray<Uint16Array>,
  o: IntersectionOptions,
): CellPrediction[] {
  const settings = requireSettings(o ?? {});
  requireInputs(p, cells, settings.spec);
  const boxes = cellBoxes(cells, o?.originalSize);
  const probabilities = sigmoids(p.logits);
  const { hits, refused } = findHits(probabilities, p.maps, cells, sortPixels(cells.data), settings);
  const best = bestClasses(hits, settings.maxClasses);
  const shown = boxes.map(() => new Float32Array(probabilities.length));
  for (const { classId, cell, confidence } of hits) if (best.has(classId)) shown[cell]![classId] = confidence;
  const negative = settings.spec.negativeClass;
  if (negative !== null) fillNegative(shown, negative, negativeConfidence(probabilities, negative, hits, refused));
  return boxes.map(({ cellId, center }, i) => ({ cellId, center, probabilities: shown[i]! }));
}
