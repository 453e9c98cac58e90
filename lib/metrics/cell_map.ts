import { HPA, type DatasetSpec } from '../data/dataset_spec';
import { CellcamError } from '../errors';
import {
  invalidArgument,
  requireInteger,
  requireNdArray,
  requireNumber,
  requireOneOf,
  requireString,
} from '../options';
import { type CellMask, MaskOverlaps, type PixelBox } from './mask_overlap';

export type { CellMask } from './mask_overlap';

const { fround } = Math;

/** A cell that was found, with one of its classes. */
export interface CellDetection {
  image: string;
  mask: CellMask;
  classId: number;
  confidence: number;
}

/** A cell that is there, with one of its classes. */
export interface CellInstance {
  image: string;
  mask: CellMask;
  classId: number;
  /** A crowd: detections that lie in it are neither right nor wrong. */
  groupOf?: boolean;
}

export interface CellMapOptions {
  /** From which intersection over union on a detection is right; default .6. */
  iou?: number;
  /** `mask` (default): overlap of masks, classes with an instance in the image; `box`: of their boxes; `mask_strict`: all classes. */
  variant?: 'mask' | 'box' | 'mask_strict';
  /** For an image, classes that are known not to be there: detections of them count as wrong. */
  verified?: Record<string, number[]>;
  /** Whether a crowd counts as one instance, found by the best detection in it; default 1 for `box`, else 0. */
  groupOfWeight?: 0 | 1;
  spec?: DatasetSpec;
}

/** True positive, false positive, ignored (in a crowd), dropped (its class or image is not evaluated, or its mask is empty). */
export type DetectionOutcome = 'T' | 'F' | 'I' | 'N';

export interface CellMapResult {
  /** Mean over the classes with instances; NaN if there are none. */
  mAP: number;
  /** One a class; NaN for a class without instances. */
  ap: number[];
  /** Instances of each class. */
  instances: number[];
  /** One a detection, in the order given. */
  outcomes: DetectionOutcome[];
}

/** What counts for a class's precision and recall. */
interface Entry {
  confidence: number;
  correct: boolean;
}

/** After each detection of a class, by falling confidence. */
export interface PrecisionRecall {
  confidence: number[];
  precision: number[];
  recall: number[];
}

interface Settings {
  iou: number;
  variant: 'mask' | 'box' | 'mask_strict';
  verified: Record<string, number[]>;
  groupOfWeight: 0 | 1;
  classes: number;
}

/** How far two masks overlap, by one of the variants. */
class Overlap {
  readonly #masks = new MaskOverlaps();
  readonly #byBox: boolean;

  constructor(variant: Settings['variant']) {
    this.#byBox = variant === 'box';
  }

  isEmpty(mask: CellMask): boolean {
    return this.#masks.area(mask) === 0;
  }

  /** Intersection over union; masks' in float32. */
  iou(a: CellMask, b: CellMask): number {
    if (this.#byBox) {
      const [both, own, other] = this.#boxes(a, b);
      return both > 0 ? both / (own + other - both) : 0;
    }
    const both = this.#masks.intersection(a, b);
    return fround(both / (this.#masks.area(a) + this.#masks.area(b) - both));
  }

  /** Intersection over the area of the first. */
  covered(a: CellMask, b: CellMask): number {
    if (!this.#byBox) return fround(this.#masks.intersection(a, b) / this.#masks.area(a));
    const [both, own] = this.#boxes(a, b);
    return both / own;
  }

  reaches(overlap: number, threshold: number): boolean {
    return overlap >= (this.#byBox ? threshold : fround(threshold));
  }

  /** Areas of the intersection and of both boxes, as shares of the image. */
  #boxes(a: CellMask, b: CellMask): [both: number, own: number, other: number] {
    const [first, second] = [shareBox(a, this.#masks.box(a)), shareBox(b, this.#masks.box(b))];
    if (!first || !second) return [0, first ? areaOf(first) : 0, second ? areaOf(second) : 0];
    const height = Math.max(0, Math.min(first[2], second[2]) - Math.max(first[0], second[0]));
    const width = Math.max(0, Math.min(first[3], second[3]) - Math.max(first[1], second[1]));
    return [height * width, areaOf(first), areaOf(second)];
  }
}

function shareBox(mask: CellMask, box: PixelBox | undefined): PixelBox | undefined {
  const [height, width] = mask?.map.shape ?? [];
  return box && [box[0] / height!, box[1] / width!, box[2] / height!, box[3] / width!];
}

function areaOf([top, left, bottom, right]: PixelBox): number {
  return (bottom - top) * (right - left);
}

/** The place of the first of the highest overlaps, and that. */
function best<T>(items: T[], overlap: (item: T) => number): { place: number; overlap: number } {
  let found = { place: -1, overlap: -1 };
  items.forEach((item, place) => {
    const own = overlap(item);
    if (own > found.overlap) found = { place, overlap: own };
  });
  return found;
}

/** By falling confidence; of equal ones the later first. */
function byConfidence<T extends { confidence: number }>(entries: T[]): T[] {
  return [...entries].sort((a, b) => a.confidence - b.confidence).reverse();
}

/** A detection and where it is to be told what became of it. */
type Placed = CellDetection & { place: number };

/** One class of one image: what became of each detection, and what counts. Source: the Open Images evaluation of instances. */
function matchImage(
  detections: Placed[],
  truth: CellInstance[],
  overlap: Overlap,
  { iou, groupOfWeight }: Settings,
  outcomes: DetectionOutcome[],
): Entry[] {
  const instances = truth.filter(({ groupOf }) => !groupOf);
  const groups = truth.filter(({ groupOf }) => groupOf);
  const taken = new Set<number>();
  const bestInGroup = new Map<number, number>();
  const entries: Entry[] = [];
  for (const { mask, confidence, place } of byConfidence(detections)) {
    const match = best(instances, (instance) => overlap.iou(mask, instance.mask));
    const isFound = match.place >= 0 && overlap.reaches(match.overlap, iou) && !taken.has(match.place);
    const group = isFound ? { place: -1, overlap: -1 } : best(groups, (each) => overlap.covered(mask, each.mask));
    if (isFound) taken.add(match.place);
    if (group.place >= 0 && overlap.reaches(group.overlap, iou)) {
      outcomes[place] = 'I';
      bestInGroup.set(group.place, Math.max(bestInGroup.get(group.place) ?? -Infinity, confidence));
      continue;
    }
    outcomes[place] = isFound ? 'T' : 'F';
    entries.push({ confidence, correct: isFound });
  }
  if (groupOfWeight === 0) return entries;
  return [...entries, ...[...bestInGroup.values()].map((confidence) => ({ confidence, correct: true }))];
}

function precisionRecall(entries: Entry[], instances: number): PrecisionRecall {
  const curve: PrecisionRecall = { confidence: [], precision: [], recall: [] };
  let correct = 0;
  byConfidence(entries).forEach((entry, i) => {
    if (entry.correct) correct++;
    curve.confidence.push(entry.confidence);
    curve.precision.push(correct / (i + 1));
    curve.recall.push(correct / instances);
  });
  return curve;
}

/** Area under the precision that is reached at each recall or a higher one. */
function interpolatedPrecision({ precision, recall }: PrecisionRecall, instances: number): number {
  if (instances === 0) return NaN;
  let [area, highest] = [0, 0];
  for (let i = precision.length - 1; i >= 0; i--) {
    highest = Math.max(highest, precision[i]!);
    if (recall[i] !== (recall[i - 1] ?? 0)) area += highest;
  }
  return area / instances;
}

function requireMask(mask: unknown, name: string): void {
  if (mask === null) return;
  if (typeof mask !== 'object') throw invalidArgument('a mask { map, cellId } or null', name, mask);
  const { map, cellId } = mask as NonNullable<CellMask>;
  requireNdArray(map, `${name}.map`, ['Uint8Array', 'Uint16Array'], ['H', 'W']);
  requireInteger(cellId, `${name}.cellId`, 1, 65535);
}

function requireCells<T extends CellInstance | CellDetection>(cells: unknown, name: string, classes: number): T[] {
  if (!Array.isArray(cells)) throw invalidArgument('an array', name, cells);
  cells.forEach((cell: T, i) => {
    if (typeof cell !== 'object' || cell === null) throw invalidArgument('an object', `${name}[${i}]`, cell);
    requireString(cell.image, `${name}[${i}].image`);
    requireMask(cell.mask, `${name}[${i}].mask`);
    requireInteger(cell.classId, `${name}[${i}].classId`, 0, classes - 1);
    if ('confidence' in cell) requireNumber(cell.confidence, `${name}[${i}].confidence`, -Infinity);
  });
  return cells as T[];
}

/** Overlap needs masks of one size. */
function requireOneSize(cells: (CellDetection | CellInstance)[]): void {
  const sizes = new Map<string, string>();
  for (const { image, mask } of cells) {
    if (mask === null) continue;
    const size = mask.map.shape.join(' × ');
    const other = sizes.get(image) ?? size;
    if (other !== size)
      throw new CellcamError('ERR_INVALID_ARG', `Expected all masks of '${image}' of one size but they have ${other} and ${size}`); // prettier-ignore
    sizes.set(image, size);
  }
}

function grouped<T extends { image: string }>(cells: T[]): Map<string, T[]> {
  const images = new Map<string, T[]>();
  for (const cell of cells) {
    const own = images.get(cell.image);
    if (own) own.push(cell);
    else images.set(cell.image, [cell]);
  }
  return images;
}

function requireSettings(o: CellMapOptions): Settings {
  const variant = requireOneOf(o.variant ?? 'mask', 'variant', ['mask', 'box', 'mask_strict'] as const);
  return {
    iou: requireNumber(o.iou ?? 0.6, 'iou', 0, 1),
    variant,
    verified: o.verified ?? {},
    groupOfWeight: requireInteger(o.groupOfWeight ?? (variant === 'box' ? 1 : 0), 'groupOfWeight', 0, 1) as 0 | 1,
    classes: (o.spec ?? HPA).classes.length,
  };
}

/** What is no array is left to the check that follows. */
function ofImage(cells: unknown, image: string): unknown {
  return Array.isArray(cells) ? cells.map((cell: object) => ({ ...cell, image })) : cells;
}

/** Counts image by image, so that only one image's masks need be at hand. */
export class CellMapTally {
  readonly #settings: Settings;
  readonly #images = new Map<string, { classId: number; entries: Entry[] }[]>();
  readonly #instances: number[];

  constructor(o: CellMapOptions = {}) {
    this.#settings = requireSettings(o);
    this.#instances = new Array<number>(this.#settings.classes).fill(0);
  }

  /**
   * All there is of one image. @returns what became of each detection
   * @throws CellcamError ERR_INVALID_ARG, also for an image that was counted already
   */
  add(
    image: string,
    detections: Omit<CellDetection, 'image'>[],
    truth: Omit<CellInstance, 'image'>[],
  ): DetectionOutcome[] {
    const { classes, variant, verified, groupOfWeight } = this.#settings;
    const found = requireCells<CellDetection>(ofImage(detections, image), 'detections', classes);
    const there = requireCells<CellInstance>(ofImage(truth, image), 'truth', classes).filter(
      ({ mask }) => mask !== null,
    );
    requireOneSize([...found, ...there]);
    if (this.#images.has(image))
      throw new CellcamError('ERR_INVALID_ARG', `Expected image '${image}' once but it came twice`);
    const overlap = new Overlap(variant);
    const outcomes = found.map((): DetectionOutcome => 'N');
    const placed = found
      .map((detection, place) => ({ ...detection, place }))
      .filter(({ mask }) => !overlap.isEmpty(mask));
    const known = verified[image] !== undefined || there.length > 0;
    const every = Array.from({ length: classes }, (_, classId) => classId);
    const shown = [...new Set([...there.map(({ classId }) => classId), ...(verified[image] ?? [])])];
    const own: { classId: number; entries: Entry[] }[] = [];
    for (const classId of !known ? [] : variant === 'mask_strict' ? every : shown) {
      const cells = there.filter((cell) => cell.classId === classId);
      const ofClass = placed.filter((detection) => detection.classId === classId);
      this.#instances[classId]! += cells.filter(({ groupOf }) => groupOfWeight === 1 || !groupOf).length;
      own.push({ classId, entries: matchImage(ofClass, cells, overlap, this.#settings, outcomes) });
    }
    this.#images.set(image, own);
    return outcomes;
  }

  /** Of all images so far. */
  result(): Omit<CellMapResult, 'outcomes'> & { curves: PrecisionRecall[] } {
    const entries = this.#instances.map((): Entry[] => []);
    for (const image of [...this.#images.keys()].sort())
      for (const { classId, entries: own } of this.#images.get(image)!)
        for (const entry of own) entries[classId]!.push(entry);
    const curves = entries.map((own, classId) => precisionRecall(own, this.#instances[classId]!));
    const ap = curves.map((curve, classId) => interpolatedPrecision(curve, this.#instances[classId]!));
    const counted = ap.filter((value) => !Number.isNaN(value));
    const mAP = counted.reduce((sum, value) => sum + value, 0) / counted.length;
    return { mAP, ap, instances: [...this.#instances], curves };
  }
}

/**
 * Average precision of cells found, by class, and its mean: the metric of the HPA single-cell challenge (Open Images' instance metric
 * at one overlap). Detections of images without instances are left out. A detection of equal confidence that is listed later comes first.
 * @throws CellcamError ERR_INVALID_ARG
 */
export function cellMap(detections: CellDetection[], truth: CellInstance[], o: CellMapOptions = {}): CellMapResult {
  const { classes } = requireSettings(o);
  const found = requireCells<CellDetection>(detections, 'detections', classes);
  const there = requireCells<CellInstance>(truth, 'truth', classes);
  requireOneSize([...found, ...there]);
  const tally = new CellMapTally(o);
  const outcomes = found.map((): DetectionOutcome => 'N');
  const placed = found.map((detection, place) => ({ ...detection, place }));
  const [detected, known] = [grouped(placed), grouped(there)];
  for (const image of new Set([...known.keys(), ...Object.keys(o.verified ?? {})])) {
    const own = detected.get(image) ?? [];
    tally.add(image, own, known.get(image) ?? []).forEach((outcome, i) => (outcomes[own[i]!.place] = outcome));
  }
  const { mAP, ap, instances } = tally.result();
  return { mAP, ap, instances, outcomes };
}
