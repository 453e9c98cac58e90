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
import { cellRows, type CellRows } from './cell_rows';
import { cellBoxes } from './centers';
import { EnlargedQuantiles } from './enlarged_quantiles';

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

/** 1 / (1 + exp(-x)) in float32. */
function sigmoids(logits: Float32Array): Float32Array {
  return logits.map((x) => 1 / fround(1 + fround(Math.exp(-x))));
}

/** NaN where both the cell and the image have no activation. */
function confidenceOf(cell: number, probability: number, total: number): number {
  const confidence = fround(fround(cell * probability) / total);
  return confidence > probability ? probability : confidence;
}

/** Fields of one size follow each other: what does not depend on their cells is made once. */
let last: EnlargedQuantiles | undefined;

function quantilesFor(map: [number, number], size: [number, number]): EnlargedQuantiles {
  if (!last?.fits(map, size)) last = new EnlargedQuantiles(map, size);
  return last;
}

/** All kept pairs, classes ascending, then cells; and whether some pair was refused. */
function findHits(
  probabilities: Float32Array,
  maps: NdArray<Float32Array>,
  cells: NdArray<Uint16Array>,
  runs: CellRows,
  settings: Settings,
): { hits: Hit[]; refused: boolean } {
  const [, h, w] = maps.shape as [number, number, number];
  const enlarged = quantilesFor([h, w], cells.shape as [number, number]);
  enlarged.setCells(runs);
  const cam = new Float32Array(h * w);
  const hits: Hit[] = [];
  let refused = false;
  probabilities.forEach((probability, classId) => {
    if (!(probability > fround(settings.classThreshold))) return;
    writeCam(maps.data.subarray(classId * h * w, (classId + 1) * h * w), cam);
    enlarged.take(cam);
    const total = enlarged.ofImage(settings.quantile);
    enlarged.ofCells(settings.quantile).forEach((own, cell) => {
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
  const runs = cellRows(cells);
  const boxes = cellBoxes(cells, o?.originalSize, runs);
  const probabilities = sigmoids(p.logits);
  const { hits, refused } = findHits(probabilities, p.maps, cells, runs, settings);
  const best = bestClasses(hits, settings.maxClasses);
  const shown = boxes.map(() => new Float32Array(probabilities.length));
  for (const { classId, cell, confidence } of hits) if (best.has(classId)) shown[cell]![classId] = confidence;
  const negative = settings.spec.negativeClass;
  if (negative !== null) fillNegative(shown, negative, negativeConfidence(probabilities, negative, hits, refused));
  return boxes.map(({ cellId, center }, i) => ({ cellId, center, probabilities: shown[i]! }));
}
