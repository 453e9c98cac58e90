import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { stringify } from 'csv-stringify/sync';
import { HPA, datasetSpec, type DatasetSpec } from '../data/dataset_spec';
import { writeDurably } from '../data/durable';
import { findFile, pngFolder, resolveHomes, type Factory, type Homes } from '../data/homes';
import { imageIndex, selectImages } from '../data/image_index';
import { concatTables, readLabels, selectRows, type LabelTable } from '../data/labels';
import type { ImageIndex } from '../data/loader';
import { CellcamError } from '../errors';
import { stratifiedFolds } from '../folds/stratification';
import { PuzzleCam } from '../model/puzzle_cam';
import { native, type StepProgress } from '../native';
import {
  invalidArgument,
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
import { FoldRun } from './fold_run';
import type { ScheduleName } from './schedule';
import { modelName, snapshotFiles, type SnapshotFiles } from './stages';

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
  mtype?: 'siamese';
  backbone?: string;
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
  /** A weights file to start from. */
  pretrained?: string | null;
  folds?: number;
  imageSize?: number;
  cropSize?: number;
  device?: Device;
  precision?: Precision;
  /** plateau (default) or cosine. */
  schedule?: ScheduleName;
  spec?: DatasetSpec;
  signal?: AbortSignal;
  onEvent?: (event: TrainEvent) => void;
}

type Plan = ReturnType<typeof trainPlan>;

/** Checks all options before any work, and fills in the original's defaults. */
function trainPlan(o: TrainOptions) {
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
    mtype: requireOneOf(o.mtype ?? 'siamese', 'mtype', ['siamese'] as const),
    backbone: requireString(o.backbone ?? 'seresnext50_32x4d', 'backbone'),
    gamma: requireNumber(o.gamma ?? 0.5, 'gamma', 0),
    lr: requireNumber(o.lr ?? 3e-4, 'lr', Number.MIN_VALUE),
    seed: requireInteger(o.seed ?? 2020, 'seed', 0, 0xffffffff),
    batch: requireInteger(o.batchSize ?? 36, 'batchSize', 1, 4096),
    epochs: requireInteger(o.epochs ?? 48, 'epochs', 1),
    workers: requireInteger(o.workers ?? Math.min(8, availableParallelism()), 'workers', 1, 256),
    resumeFold: requireInteger(o.resumeFold ?? 0, 'resumeFold', 0),
    stage: requireName(o.stage ?? 'stage1', 'stage'),
    pretrainedStage: o.pretrainedStage == null ? undefined : requireName(o.pretrainedStage, 'pretrainedStage'),
    pretrained:
      o.pretrained == null
        ? undefined
        : findFile(requireString(o.pretrained, 'pretrained'), [homes.home], 'weights file'),
    folds: requireInteger(o.folds ?? 4, 'folds', 2, 1000),
    schedule: requireOneOf(o.schedule ?? 'plateau', 'schedule', ['plateau', 'cosine'] as const),
    signal: requireSignal(o.signal),
    onEvent: o.onEvent ?? (() => undefined),
  };
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

async function startModel(plan: Plan, name: string, fold: number): Promise<PuzzleCam> {
  const from =
    plan.pretrainedStage === undefined
      ? plan.pretrained
      : snapshotFiles(plan.homes.home, name, fold, plan.pretrainedStage).best;
  return PuzzleCam.forSpec(plan.spec, {
    backbone: plan.backbone,
    device: plan.device,
    seed: plan.seed,
    ...(from === undefined ? {} : { pretrained: from }),
  });
}

async function trainFold(
  plan: Plan,
  folded: FoldedTable,
  images: ImageIndex,
  name: string,
  fold: number,
): Promise<SnapshotFiles> {
  const rows = splitFold(folded, fold);
  const [train, valid] = [selectRows(folded.table, rows.train), selectRows(folded.table, rows.valid)];
  const files = snapshotFiles(plan.homes.home, name, fold, plan.stage);
  plan.onEvent({ kind: 'fold', fold, train: train.ids.length, valid: valid.ids.length, folder: files.folder });
  const { backbone, stage, seed, lr, schedule, epochs, batch, gamma } = plan;
  const model = await startModel(plan, name, fold);
  const run = new FoldRun({
    settings: {
      fold,
      stage,
      backbone,
      seed,
      lr,
      schedule,
      epochs,
      batch,
      gamma,
      size: plan.imageSize,
      crop: plan.cropSize,
      precision: native((a) => a.resolve(model.device, plan.precision)).precision,
      images: [train.ids.length, valid.ids.length],
    },
    model,
    train,
    valid,
    index: selectImages(images, [...rows.train, ...rows.valid]),
    files,
    workers: plan.workers,
    signal: plan.signal,
    onStep: (part, epoch, progress) => plan.onEvent({ kind: 'step', fold, epoch, epochs, part, progress }),
    onEpoch: (record, best) => plan.onEvent({ kind: 'epoch', fold, epochs, record, best }),
  });
  try {
    await run.run();
    plan.onEvent({ kind: 'done', fold, best: run.best!, weights: files.best });
    return files;
  } finally {
    run.dispose();
    model.dispose();
  }
}

/** Writes which fold validates each image; refuses to change that under a run that has begun. */
async function writeFolds(plan: Plan, name: string, { table, fold }: FoldedTable): Promise<void> {
  const { home } = plan.homes;
  const path = join(home, 'models', name, `folds_${plan.stage}.csv`);
  const rows = table.ids.map((id, row) => [id, table.ext[row], fold[row]]);
  const text = stringify([['ID', 'ext', 'fold'], ...rows]);
  const written = existsSync(path) ? readFileSync(path, 'utf8') : undefined;
  if (written === text) return;
  const folds = Array.from({ length: plan.folds }, (_, i) => snapshotFiles(home, name, i + 1, plan.stage));
  if (written !== undefined && folds.some(({ last }) => existsSync(last))) {
    throw new CellcamError(
      'ERR_TRAINING',
      `Expected the split of ${path} but ${table.path} with seed ${plan.seed} gives another: ` +
        'use the same table and options, another --stage, or remove the folder',
    );
  }
  mkdirSync(dirname(path), { recursive: true });
  await writeDurably(path, text);
}

/**
 * Trains one model a fold: stratifies the table, then for every fold trains on the other folds and validates on this one.
 * Finished folds are left as they are, an unfinished one goes on where its state was saved.
 * @returns for each fold trained, its files: best weights, state, histories, per-image OOF probabilities, curves
 * @throws CellcamError; the signal's reason after saving the state
 */
export async function trainFolds(options: TrainOptions): Promise<SnapshotFiles[]> {
  const plan = trainPlan(options);
  const folded = foldTables(plan);
  const name = modelName({ ...plan });
  const images = await imageIndex(folded.table, { ...plan, trainHome: plan.homes.trainHome, size: plan.imageSize });
  await writeFolds(plan, name, folded);
  const done: SnapshotFiles[] = [];
  for (let fold = Math.max(1, plan.resumeFold); fold <= plan.folds; fold++)
    done.push(await trainFold(plan, folded, images, name, fold));
  return done;
}
