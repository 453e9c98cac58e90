import { resizeLabels } from '../cells/mask_formats';
import { decodeMask } from '../cells/run_lengths';
import { datasetSpec, HPA, type DatasetSpec } from '../data/dataset_spec';
import { writeDurably } from '../data/durable';
import { readLabels } from '../data/labels';
import { findMask, readMask } from '../data/masks';
import { CellcamError } from '../errors';
import { averagePrecision } from '../metrics/average_precision';
import { CellMapTally, type PrecisionRecall } from '../metrics/cell_map';
import { f1Samples } from '../metrics/f1';
import { MaskOverlaps, type CellMask } from '../metrics/mask_overlap';
import { invalidArgument, requireNumber, requireOneOf, requireSignal, requireString, throwIfAborted } from '../options';
import { predictedFields, type FieldRow } from './predicted_fields';
import { TrueCells, type TrueCell } from './true_cells';

export interface EvaluateOptions {
  /** A submission, a table of cells (.csv), or .jsonl as `predictCells` writes them. */
  predictions: string;
  /** True cells: a table ID, cell_id, Label with `truthMasks`; or one of the challenge's evaluator, which has a Mask a row. */
  truth?: string;
  /** Folder of the true cells' masks. */
  truthMasks?: string;
  /** Folder of the masks that were predicted with, for a table of cells, which has only their numbers. Default: `truthMasks`. */
  predictionMasks?: string;
  /** Table of image labels: ID, Label. For image-level scores. */
  labelsFile?: string;
  /** Default .6. */
  iou?: number;
  /** As in `cellMap`. Default: `mask`. */
  variant?: 'mask' | 'box' | 'mask_strict';
  /** Also written as JSON. */
  output?: string;
  spec?: DatasetSpec;
  signal?: AbortSignal;
  onProgress?: (p: { done: number; id: string }) => void;
}

export interface CellEvaluation {
  mAP: number;
  /** One a class, NaN (null in JSON) for classes without true cells. */
  ap: number[];
  instances: number[];
  /** One a class, thinned out to at most 200 points. */
  curves: PrecisionRecall[];
  /** True cells by class (rows), and the likeliest class of the predicted cell that overlaps most (columns); the last column: no such cell. */
  confusion: number[][];
}

export interface ImageEvaluation {
  images: number;
  /** F1 of each image at .5, averaged. */
  f1: number;
  mAP: number;
  /** NaN for classes that no image has. */
  ap: number[];
}

export interface Evaluation {
  classes: string[];
  /** Of the truth's images. */
  images: number;
  cells?: CellEvaluation;
  imageLevel?: ImageEvaluation;
  /** Images of the truth, or of the labels, without predictions: all their cells count as missed. */
  withoutPredictions: string[];
  /** Predicted images without truth: left out. */
  withoutTruth: string[];
}

class CellScorer {
  readonly #tally: CellMapTally;
  readonly #confusion: number[][];

  constructor(
    private readonly truth: TrueCells,
    private readonly o: {
      iou: number;
      variant: 'mask' | 'box' | 'mask_strict';
      spec: DatasetSpec;
      predictionMasks: string | undefined;
    },
  ) {
    const classes = o.spec.classes.length;
    this.#tally = new CellMapTally(o);
    this.#confusion = Array.from({ length: classes }, () => new Array<number>(classes + 1).fill(0));
  }

  async add(id: string, field: FieldRow | undefined): Promise<void> {
    // At the prediction's size, at which its masks are exact; tables of cells have masks of the truth's size.
    const exact = field?.cells.some(({ mask }) => mask !== undefined) === true;
    const there = await this.truth.cellsOf(id, exact ? [field.height, field.width] : undefined);
    const placed = field && there[0] ? await placeCells(field, this.o.predictionMasks, there[0].mask.map.shape) : [];
    const detections = (field?.detections ?? [])
      .filter(({ confidence }) => confidence > 0)
      .map(({ cell, classId, confidence }) => ({ mask: placed[cell] ?? null, classId, confidence }));
    const instances = there.flatMap(({ mask, labels, groupOf }) =>
      labels.map((classId) => ({ mask, classId, groupOf })),
    );
    this.#tally.add(id, detections, instances);
    this.#confuse(there, placed, field?.detections ?? []);
  }

  #confuse(there: TrueCell[], placed: NonNullable<CellMask>[], detections: FieldRow['detections']): void {
    const overlaps = new MaskOverlaps();
    const likeliest = new Map<number, { classId: number; confidence: number }>();
    for (const { cell, classId, confidence } of detections)
      if (confidence > (likeliest.get(cell)?.confidence ?? -Infinity)) likeliest.set(cell, { classId, confidence });
    for (const { mask, labels } of there) {
      let [best, found] = [this.o.iou, -1];
      placed.forEach((candidate, i) => {
        const both = overlaps.intersection(mask, candidate);
        const iou = both / (overlaps.area(mask) + overlaps.area(candidate) - both);
        if (iou >= best) [best, found] = [iou, i];
      });
      const column = likeliest.get(found)?.classId ?? this.o.spec.classes.length;
      for (const label of labels) this.#confusion[label]![column]!++;
    }
  }

  result(): CellEvaluation {
    const { mAP, ap, instances, curves } = this.#tally.result();
    return { mAP, ap, instances, curves: curves.map(thinned), confusion: this.#confusion };
  }
}

/** Masks of a field's predicted cells, brought to `size`. */
async function placeCells(
  field: FieldRow,
  masks: string | undefined,
  size: number[],
): Promise<NonNullable<CellMask>[]> {
  const [height, width] = size as [number, number];
  if (field.cells.every(({ mask }) => mask !== undefined)) {
    return field.cells.map(({ mask }) => ({ map: decodeMask(mask!, [field.height, field.width]), cellId: 1 }));
  }
  if (masks === undefined)
    throw invalidArgument('the folder of masks that were predicted with', 'predictionMasks', masks);
  const map = resizeLabels(await readMask(findMask(masks, field.id)), [height, width]);
  return field.cells.map(({ cellId }) => ({ map, cellId }));
}

const MOST_POINTS = 200;

function thinned(curve: PrecisionRecall): PrecisionRecall {
  const { length } = curve.recall;
  if (length <= MOST_POINTS) return curve;
  const places = Array.from({ length: MOST_POINTS }, (_, i) => Math.round((i * (length - 1)) / (MOST_POINTS - 1)));
  const pick = (values: number[]): number[] => places.map((i) => values[i]!);
  return { confidence: pick(curve.confidence), precision: pick(curve.precision), recall: pick(curve.recall) };
}

/** An image's probability of a class is that of its likeliest cell. */
class ImageScorer {
  readonly #rows = new Map<string, Float32Array>();

  constructor(
    private readonly labels: Map<string, Uint8Array>,
    private readonly classes: number,
  ) {}

  add(field: FieldRow): void {
    if (!this.labels.has(field.id)) return;
    const most = new Float32Array(this.classes);
    for (const { classId, confidence } of field.detections) most[classId] = Math.max(most[classId]!, confidence);
    this.#rows.set(field.id, most);
  }

  result(): ImageEvaluation {
    const ids = [...this.labels.keys()];
    const shape = [ids.length, this.classes];
    const [data, targets] = [new Float32Array(ids.length * this.classes), new Uint8Array(ids.length * this.classes)];
    ids.forEach((id, i) => {
      data.set(this.#rows.get(id) ?? new Float32Array(this.classes), i * this.classes);
      targets.set(this.labels.get(id)!, i * this.classes);
    });
    const column = <T extends Float32Array | Uint8Array>(values: T, c: number) =>
      values.filter((_, i) => i % this.classes === c);
    const ap = Array.from({ length: this.classes }, (_, c) => {
      const truth = column(targets, c);
      return truth.includes(1) ? averagePrecision(column(data, c), truth) : NaN;
    });
    const counted = ap.filter((v) => !Number.isNaN(v));
    return {
      images: ids.length,
      f1: f1Samples({ data, shape }, { data: targets, shape }),
      mAP: counted.reduce((sum, v) => sum + v, 0) / counted.length,
      ap,
    };
  }
}

function imageLabels(path: string, spec: DatasetSpec): Map<string, Uint8Array> {
  const { ids, labels } = readLabels(path, { spec });
  const classes = spec.classes.length;
  return new Map(ids.map((id, i) => [id, labels.data.slice(i * classes, (i + 1) * classes)]));
}

function checkClasses(field: FieldRow, classes: number, path: string): void {
  const bad = field.detections.find(({ classId }) => !(Number.isInteger(classId) && classId >= 0 && classId < classes));
  if (bad === undefined) return;
  throw new CellcamError(
    'ERR_TABLE',
    `${path}: image '${field.id}': Expected classes from 0 to ${classes - 1} but found ${bad.classId}`,
  );
}

/**
 * Scores predictions against true cells (instance mAP, the challenge's metric), against image labels, or both. Images come one by one.
 * @throws CellcamError ERR_INVALID_ARG, ERR_FILE_NOT_FOUND, ERR_TABLE, ERR_IMAGE
 */
export async function evaluatePredictions(o: EvaluateOptions): Promise<Evaluation> {
  if (typeof o !== 'object' || o === null) throw invalidArgument('an object', 'options', o);
  const spec = datasetSpec(o.spec ?? HPA);
  const signal = requireSignal(o.signal);
  const predictions = requireString(o.predictions, 'predictions');
  const settings = {
    iou: requireNumber(o.iou ?? 0.6, 'iou', 0, 1),
    variant: requireOneOf(o.variant ?? 'mask', 'variant', ['mask', 'box', 'mask_strict'] as const),
    spec,
    predictionMasks: o.predictionMasks ?? o.truthMasks,
  };
  if ((o.truth ?? o.labelsFile) === undefined)
    throw new CellcamError('ERR_INVALID_ARG', 'Expected truth, or labelsFile, or both');
  const truth = o.truth === undefined ? undefined : TrueCells.read(o.truth, o.truthMasks, spec);
  const labels = o.labelsFile === undefined ? undefined : imageLabels(o.labelsFile, spec);
  const cells = truth && new CellScorer(truth, settings);
  const images = labels && new ImageScorer(labels, spec.classes.length);
  const seen = new Set<string>();
  const withoutTruth: string[] = [];
  for await (const field of predictedFields(predictions, spec.classes.length)) {
    throwIfAborted(signal);
    if (seen.has(field.id)) throw new CellcamError('ERR_TABLE', `${predictions}: Expected image '${field.id}' once but it is there twice`); // prettier-ignore
    seen.add(field.id);
    checkClasses(field, spec.classes.length, predictions);
    const isTrue = truth?.ids.has(field.id) === true;
    if (isTrue) await cells!.add(field.id, field);
    images?.add(field);
    if (!isTrue && labels?.has(field.id) !== true) withoutTruth.push(field.id);
    o.onProgress?.({ done: seen.size, id: field.id });
  }
  const known = [...new Set([...(truth?.ids ?? []), ...(labels?.keys() ?? [])])];
  const missing = known.filter((id) => !seen.has(id));
  for (const id of missing) if (truth?.ids.has(id)) await cells!.add(id, undefined);
  const result: Evaluation = {
    classes: spec.classes,
    images: known.length,
    ...(cells === undefined ? {} : { cells: cells.result() }),
    ...(images === undefined ? {} : { imageLevel: images.result() }),
    withoutPredictions: missing,
    withoutTruth,
  };
  if (o.output !== undefined)
    await writeDurably(requireString(o.output, 'output'), JSON.stringify(result, null, 1) + '\n');
  return result;
}
