import { availableParallelism } from 'node:os';
import { HPA, datasetSpec, type DatasetSpec } from '../data/dataset_spec';
import { isHubId } from '../data/weights/hub';
import { findFile, pngFolder, resolveHomes, type Factory, type Homes } from '../data/homes';
import { concatTables, readLabels, type LabelTable } from '../data/labels';
import { CellcamError } from '../errors';
import { stratifiedFolds } from '../folds/stratification';
import {
  invalidArgument,
  requireBoolean,
  requireDevice,
  requireInteger,
  requireNumber,
  requireOneOf,
  requirePrecision,
  requireSignal,
  requireString,
  type Device,
  type Precision,
} from '../options';
import type { EpochRecord } from '../report/curves';
import { findBackbone } from '../model/backbones';
import { native, type StepProgress } from '../native';
import { augmentationOptions, type AugmentationOptions } from './augmentation';
import { SAMPLERS, type SamplerName } from './sample_weights';
import type { ScheduleName } from './schedule';

export type ModelType = 'siamese' | 'regular';
export const MODEL_TYPES = ['siamese', 'regular'] as const;

/** What training tells while it runs. */
export type TrainEvent =
  | { kind: 'fold'; fold: number; train: number; valid: number; folder: string }
  | { kind: 'step'; fold: number; epoch: number; epochs: number; part: 'train' | 'valid'; progress: StepProgress }
  | { kind: 'epoch'; fold: number; epochs: number; record: EpochRecord; best: boolean }
  | { kind: 'done'; fold: number; best: { epoch: number; loss: number }; weights: string };

export interface TrainOptions extends Partial<Homes> {
  /** CSV table: an absolute path, or one relative to the data home or the working folder. */
  labelsFile?: string;
  /** A second table whose images are added to every fold's parts (stage 2). */
  additionalLabelsFile?: string;
  /** HDF5 (default), or None to read the PNGs of `imagesFolder`. */
  factory?: Factory;
  /** For factory None. Default: <trainHome>/images. */
  imagesFolder?: string;
  /** siamese (default): image and tiles must agree; regular: a plain classifier of whole images. */
  mtype?: ModelType;
  backbone?: string;
  /** Before the classifier. Default: 0. */
  dropout?: number;
  /** The same bits from the same run also on CUDA, at some cost in speed. Default: false; on the CPU they always are. */
  deterministic?: boolean;
  gamma?: number;
  lr?: number;
  seed?: number;
  batchSize?: number;
  epochs?: number;
  /** Loader threads. Default: 8, at most the machine's cores. */
  workers?: number;
  /** Folds below this are not trained. */
  resumeFold?: number;
  stage?: string;
  /** A stage to start from, or null. */
  pretrainedStage?: string | null;
  /** Weights to start from: a file, a hub id, or `imagenet` for the backbone's own. Default: random ones. */
  pretrained?: string | null;
  folds?: number;
  imageSize?: number;
  cropSize?: number;
  device?: Device;
  precision?: Precision;
  /** What is drawn for every training image. Default: all that the original draws. */
  augmentation?: AugmentationOptions;
  /** How often an image is drawn: by the classes' frequency (default), by its root, or each once. */
  sampler?: SamplerName;
  /** plateau (default) or cosine. */
  schedule?: ScheduleName;
  spec?: DatasetSpec;
  signal?: AbortSignal;
  onEvent?: (event: TrainEvent) => void;
}

/** Checked options, with every default filled in. */
export type TrainPlan = ReturnType<typeof trainPlan>;

/** Checks all options before any work, and fills in the original's defaults. */
export function trainPlan(o: TrainOptions) {
  if (typeof o !== 'object' || o === null) throw invalidArgument('an object', 'options', o);
  const homes = resolveHomes(o);
  const spec = datasetSpec(o.spec ?? HPA);
  const imageSize = requireInteger(o.imageSize ?? 512, 'imageSize', 64, 16384);
  const cropSize = requireInteger(o.cropSize ?? Math.min(384, imageSize), 'cropSize', 64, imageSize);
  for (const [name, size] of [
    ['imageSize', imageSize],
    ['cropSize', cropSize],
  ] as const) {
    if (size % 64 !== 0)
      throw invalidArgument('a multiple of 64, so that the maps of image and tiles have one size,', name, size);
  }
  const device = requireDevice(o.device ?? 'auto');
  const precision = requirePrecision(o.precision ?? 'auto');
  native((a) => a.resolve(device, precision));
  const folds = requireInteger(o.folds ?? 4, 'folds', 2, 1000);
  const find = (file: string): string =>
    findFile(requireString(file, 'labelsFile'), [homes.dataHome], 'table of labels');
  return {
    homes,
    spec,
    imageSize,
    cropSize,
    device,
    precision,
    labelsFile: find(o.labelsFile ?? 'train_cleaned_default_external.csv'),
    additionalLabelsFile: o.additionalLabelsFile === undefined ? undefined : find(o.additionalLabelsFile),
    imagesFolder: pngFolder(o, homes),
    mtype: requireOneOf(o.mtype ?? 'siamese', 'mtype', MODEL_TYPES),
    dropout: requireNumber(o.dropout ?? 0, 'dropout', 0, 0.99),
    deterministic: requireBoolean(o.deterministic ?? false, 'deterministic'),
    backbone: findBackbone(requireString(o.backbone ?? 'seresnext50_32x4d', 'backbone')).name,
    gamma: requireNumber(o.gamma ?? 0.5, 'gamma', 0),
    lr: requireNumber(o.lr ?? 3e-4, 'lr', Number.MIN_VALUE),
    seed: requireInteger(o.seed ?? 2020, 'seed', 0, 0xffffffff),
    batch: requireInteger(o.batchSize ?? 36, 'batchSize', 1, 4096),
    epochs: requireInteger(o.epochs ?? 48, 'epochs', 1),
    workers: requireInteger(o.workers ?? Math.min(8, availableParallelism()), 'workers', 1, 256),
    resumeFold: requireInteger(o.resumeFold ?? 0, 'resumeFold', 0, folds),
    stage: requireName(o.stage ?? 'stage1', 'stage'),
    pretrainedStage: o.pretrainedStage == null ? undefined : requireName(o.pretrainedStage, 'pretrainedStage'),
    pretrained: o.pretrained == null ? undefined : findPretrained(requireString(o.pretrained, 'pretrained'), homes),
    folds,
    augmentation: augmentationOptions(o.augmentation),
    sampler: requireOneOf(o.sampler ?? 'balanced', 'sampler', SAMPLERS),
    schedule: requireOneOf(o.schedule ?? 'plateau', 'schedule', ['plateau', 'cosine'] as const),
    signal: requireSignal(o.signal),
    onEvent: o.onEvent ?? (() => undefined),
  };
}

/** A hub id and `imagenet` stay as they are, files are found. */
function findPretrained(source: string, { home }: Homes): string {
  return source === 'imagenet' || isHubId(source) ? source : findFile(source, [home], 'weights file');
}

function requireName(value: unknown, name: string): string {
  if (typeof value === 'string' && /^[\w.-]+$/.test(value)) return value;
  throw invalidArgument('a name of letters, digits, dots, dashes and underscores', name, value);
}

/** A table and the 1-based validation fold of each of its rows. */
export interface FoldedTable {
  table: LabelTable;
  fold: Int32Array;
}

/** Splits the table, and an additional one by itself with the same seed, so that later stages keep the first one's split. */
export function foldTables(o: {
  labelsFile: string;
  additionalLabelsFile?: string;
  folds: number;
  seed: number;
  spec?: DatasetSpec;
}): FoldedTable {
  const { spec = HPA, folds, seed } = o;
  const table = readLabels(o.labelsFile, { spec });
  const fold = stratifiedFolds(table.labels, { folds, seed });
  if (o.additionalLabelsFile === undefined) return { table, fold };
  const additional = readLabels(o.additionalLabelsFile, { spec, ext: 'additional' });
  const known = new Set(table.ids);
  const twice = additional.ids.find((id) => known.has(id));
  if (twice !== undefined) {
    throw new CellcamError(
      'ERR_TABLE',
      `Expected other images in ${additional.path} than in ${table.path} but both have '${twice}': its folds would leak`,
    );
  }
  const other = stratifiedFolds(additional.labels, { folds, seed });
  return { table: concatTables(table, additional), fold: Int32Array.from([...fold, ...other]) };
}

/** The rows that a fold trains on and those that it validates on. */
export function splitFold({ fold }: FoldedTable, k: number): { train: number[]; valid: number[] } {
  const rows = Array.from(fold.keys());
  return { train: rows.filter((row) => fold[row] !== k), valid: rows.filter((row) => fold[row] === k) };
}
