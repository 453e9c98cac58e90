import { join, resolve } from 'node:path';
import type { SegmenterOptions } from '../cells/segmenter';
import { checkFilePattern, datasetSpec, HPA, type DatasetSpec } from '../data/dataset_spec';
import { folderIds } from '../data/dump_plan';
import { findFile, resolveHomes, type Homes } from '../data/homes';
import {
  invalidArgument,
  requireInteger,
  requireOneOf,
  requireSignal,
  requireString,
  type Device,
  type Precision,
} from '../options';
import { backboneOf } from '../training/stages';
import { VERSION } from '../version';
import { type JournalHeader, type Shard } from './prediction_journal';
import { CELL_FORMATS, type CellFormat } from './prediction_tables';

export interface PredictOptions extends Partial<Homes> {
  /** Folder of the fields' files. */
  imagesFolder: string;
  /** Folder for `submission.csv` and the tables of cells; predictions are gathered in its `parts`. */
  output: string;
  /** An ensemble, averaged: weights files, of folds, backbones and seeds. */
  weightsFiles: readonly string[];
  /** Of step 2; default: the same. */
  cellWeightsFiles?: readonly string[];
  /** Of weights whose path does not tell; default seresnext50_32x4d. */
  backbone?: string;
  /**
   * `1`: each class of the field is shared out to cells by its activation map. `2`: each cell is seen alone. `both` (default): the mean.
   */
  steps?: 'both' | '1' | '2';
  /** `flips`: also the mirror images and the field turned by 180°, averaged. Default: `none`. */
  tta?: 'none' | 'flips';
  /** Cells that touch the field's edge: `keep` (default), or `drop` them. */
  border?: 'keep' | 'drop';
  /** As in `intersectCams`. */
  classThreshold?: number;
  quantile?: number;
  scoreThreshold?: number;
  maxClasses?: number;
  /** Folder of cell masks; without it fields are segmented. */
  masks?: string;
  segmenter?: SegmenterOptions;
  /** Where computed masks are kept. Default: <home>/cache/masks. */
  maskCache?: string;
  /** Tables of cells; default: csv. */
  cells?: readonly CellFormat[];
  /** Which fields, in this order; default all of the folder, ascending. */
  ids?: readonly string[];
  filePattern?: string;
  /** Side to which fields are resized; default 512. */
  imageSize?: number;
  /** Side to which single cells are resized; default 384, at most imageSize. */
  cropSize?: number;
  /** Fields, or single cells, at a time; default 4. A GPU is faster with more. */
  batchSize?: number;
  /** Part i of n, from 1: every n-th field. Tables are made by `mergePredictions` once all parts are there. */
  shard?: Shard;
  device?: Device;
  precision?: Precision;
  spec?: DatasetSpec;
  signal?: AbortSignal;
  onProgress?: (p: { done: number; total: number; cells: number; id: string }) => void;
}

function requireShard(shard: Shard | undefined): Shard {
  if (shard === undefined) return { index: 1, count: 1 };
  const count = requireInteger(shard.count, 'shard.count', 1);
  return { index: requireInteger(shard.index, 'shard.index', 1, count), count };
}

function requireFiles(files: unknown, name: string): readonly string[] {
  if (Array.isArray(files) && files.length > 0) return files as string[];
  throw invalidArgument('one or more weights files', name, files);
}

/** Everything is found and checked before the first field is read. */
export async function predictPlan(o: PredictOptions) {
  if (typeof o !== 'object' || o === null) throw invalidArgument('an object', 'options', o);
  const homes = resolveHomes(o);
  const given = datasetSpec(o.spec ?? HPA);
  const spec = o.filePattern === undefined ? given : { ...given, filePattern: checkFilePattern(o.filePattern) };
  const imagesFolder = requireString(o.imagesFolder, 'imagesFolder');
  const backbone = o.backbone ?? 'seresnext50_32x4d';
  const models = (files: readonly string[]) =>
    files.map((file) => {
      const found = findFile(file, [homes.home], 'weights file');
      return { file: found, backbone: backboneOf(found) ?? backbone };
    });
  const weights = models(requireFiles(o.weightsFiles, 'weightsFiles'));
  const imageSize = requireInteger(o.imageSize ?? 512, 'imageSize', 64, 16384);
  const shard = requireShard(o.shard);
  const all = o.ids === undefined ? await folderIds(imagesFolder, spec) : [...new Set(o.ids)];
  return {
    imagesFolder,
    spec,
    output: resolve(requireString(o.output, 'output')),
    weights,
    cellWeights:
      o.cellWeightsFiles === undefined ? weights : models(requireFiles(o.cellWeightsFiles, 'cellWeightsFiles')),
    steps: requireOneOf(o.steps ?? 'both', 'steps', ['both', '1', '2'] as const),
    tta: requireOneOf(o.tta ?? 'none', 'tta', ['none', 'flips'] as const),
    border: requireOneOf(o.border ?? 'keep', 'border', ['keep', 'drop'] as const),
    thresholds: {
      classThreshold: o.classThreshold,
      quantile: o.quantile,
      scoreThreshold: o.scoreThreshold,
      maxClasses: o.maxClasses,
    },
    masks:
      o.masks === undefined
        ? undefined
        : findFile(requireString(o.masks, 'masks'), [homes.dataHome], 'folder of masks'),
    segmenter: { ...(o.segmenter ?? { method: 'builtin' as const }), spec },
    maskCache: o.maskCache ?? join(homes.home, 'cache', 'masks'),
    cells: (o.cells ?? ['csv']).map((format) => requireOneOf(format, 'cells', CELL_FORMATS)),
    imageSize,
    cropSize: requireInteger(o.cropSize ?? Math.min(384, imageSize), 'cropSize', 32, 16384),
    batch: requireInteger(o.batchSize ?? 4, 'batchSize', 1, 4096),
    shard,
    ids: all.filter((_, i) => i % shard.count === shard.index - 1),
    signal: requireSignal(o.signal),
  };
}

export type Plan = Awaited<ReturnType<typeof predictPlan>>;

/** What predictions depend on. */
export function headerOf(plan: Plan): JournalHeader {
  const { weights, cellWeights, steps, tta, border, thresholds, masks, segmenter, imageSize, cropSize } = plan;
  const settings = {
    weights,
    cellWeights,
    tta,
    border,
    thresholds,
    masks: masks ?? segmenter.method,
    imageSize,
    cropSize,
  };
  return { cellcam: VERSION, classes: plan.spec.classes.length, steps, settings: JSON.stringify(settings) };
}
