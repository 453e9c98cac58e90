import { existsSync, mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { intersectCams } from '../cells/cam_intersection';
import { maskSource, type MaskSource } from '../cells/mask_source';
import { oofHeader, oofRow } from '../cells/oof_rows';
import type { SegmenterOptions } from '../cells/segmenter';
import { HPA, datasetSpec, type DatasetSpec } from '../data/dataset_spec';
import { fillDurably } from '../data/durable';
import { inOrder, valueOf } from '../data/in_order';
import { FieldReader } from '../data/field_reader';
import { findFile, pngFolder, resolveHomes, type Factory, type Homes } from '../data/homes';
import { imageIndex } from '../data/image_index';
import { readLabels, readSizes, selectRows, type LabelTable } from '../data/labels';
import type { ImageIndex } from '../data/loader';
import { CellcamError, messageOf } from '../errors';
import {
  invalidArgument,
  requireInteger,
  requireSignal,
  requireString,
  type Device,
  type NdArray,
  type Precision,
} from '../options';
import { switchedOn } from '../switches';
import { modelName, trainedFold } from '../training/stages';
import { foldTables, splitFold, type FoldedTable, type ModelType } from '../training/plan';
import { Predictor } from './predictor';
import { requireUnseen, seenBy } from './unseen';

export interface OofProgress {
  done: number;
  total: number;
  cells: number;
  id: string;
}

export interface OofOptions extends Partial<Homes> {
  labelsFile?: string;
  /** Table ID, ImageHeight, ImageWidth. Default: meta_cleaned_default_external.csv. */
  metadataFile?: string;
  /** The validation fold to predict, from 1; 0: all images of the table (holdout). */
  fold: number;
  /** Fold k: the weights trained without fold k. Holdout: all folds' weights. */
  weightsFiles: string[];
  /** Folder of cell masks: `<id>.png`, `<id>_mask.png`, `<id>_predictedmask.png` or such a .tif, .npy or .npz. Absent: fields are segmented. */
  masks?: string;
  /** How fields without masks are segmented; default: built in. */
  segmenter?: SegmenterOptions;
  /** Where computed masks are kept. Default: <home>/cache/masks. */
  maskCache?: string;
  oofFolder?: string;
  backbone?: string;
  mtype?: ModelType;
  seed?: number;
  folds?: number;
  batchSize?: number;
  imageSize?: number;
  cropSize?: number;
  /** HDF5 (default), or None to read the PNGs of `imagesFolder`. */
  factory?: Factory;
  /** For factory None. Default: <trainHome>/images. */
  imagesFolder?: string;
  device?: Device;
  precision?: Precision;
  spec?: DatasetSpec;
  signal?: AbortSignal;
  onProgress?: (p: OofProgress) => void;
}

export interface OofResult {
  path: string;
  images: number;
  cells: number;
  /** Of a holdout: images that some of the weights were trained on, where that is known. */
  seen: string[];
  /** Images without any row, as they have no cells. */
  withoutCells: string[];
}

type Sizes = Map<string, { height: number; width: number }>;

/** Everything is found and checked before the first image is predicted. */
async function oofPlan(o: OofOptions) {
  const homes = resolveHomes(o);
  const spec = datasetSpec(o.spec ?? HPA);
  const folds = requireInteger(o.folds ?? 4, 'folds', 2, 1000);
  const fold = requireInteger(o.fold, 'fold', 0, folds);
  const seed = requireInteger(o.seed ?? 2020, 'seed', 0, 0xffffffff);
  const imageSize = requireInteger(o.imageSize ?? 512, 'imageSize', 64, 16384);
  if (!Array.isArray(o.weightsFiles) || o.weightsFiles.length === 0) {
    throw invalidArgument('one or more weights files', 'weightsFiles', o.weightsFiles);
  }
  const masks =
    o.masks === undefined ? undefined : findFile(requireString(o.masks, 'masks'), [homes.dataHome], 'folder of masks');
  const labelsFile = findFile(
    o.labelsFile ?? 'train_cleaned_default_external.csv',
    [homes.dataHome],
    'table of labels',
  );
  const metadata = findFile(
    o.metadataFile ?? 'meta_cleaned_default_external.csv',
    [homes.dataHome],
    'table of image sizes',
  );
  const weights = o.weightsFiles.map((file) => findFile(file, [homes.home], 'weights file'));
  const table =
    fold === 0
      ? readLabels(labelsFile, { spec })
      : validationImages(foldTables({ labelsFile, folds, seed, spec }), fold);
  const sizes = readSizes(metadata);
  checkEach(table, sizes, metadata);
  if (fold > 0) for (const file of weights) requireUnseen(file, fold, table);
  const seen = new Set(fold > 0 ? [] : weights.flatMap((file) => seenBy(file, table)));
  const index = await imageIndex(table, {
    trainHome: homes.trainHome,
    imagesFolder: pngFolder(o, homes),
    size: imageSize,
    spec,
  });
  return { homes, spec, folds, fold, imageSize, masks, weights, table, sizes, index, seen: [...seen] };
}

function validationImages(folded: FoldedTable, fold: number): LabelTable {
  return selectRows(folded.table, splitFold(folded, fold).valid);
}

function checkEach(table: LabelTable, sizes: Sizes, metadata: string): void {
  const missing = table.ids.find((id) => !sizes.has(id));
  if (missing === undefined) return;
  throw new CellcamError('ERR_TABLE', `Expected the size of image '${missing}' in ${metadata} but it is not there`);
}

async function readBatch(
  reader: FieldReader,
  index: ImageIndex,
  first: number,
  count: number,
): Promise<NdArray<Uint8Array>> {
  const channels = index.spec.channels.length;
  const bytes = index.size * index.size * channels;
  const data = new Uint8Array(count * bytes);
  for (let i = 0; i < count; i++) await reader.readInto(first + i, data.subarray(i * bytes, (i + 1) * bytes));
  return { data, shape: [count, index.size, index.size, channels] };
}

/** What a batch holds of one image. */
function imageOf<T extends Float32Array | Uint8Array>(array: NdArray<T>, i: number): NdArray<T> {
  const [, ...shape] = array.shape;
  const size = shape.reduce((n, d) => n * d, 1);
  return { data: array.data.subarray(i * size, (i + 1) * size) as T, shape };
}

interface Cells {
  rows: string;
  count: number;
}

type Plan = Awaited<ReturnType<typeof oofPlan>>;

async function cellsOf(
  plan: Plan,
  masks: MaskSource,
  row: number,
  pixels: Uint8Array,
  seen: { logits: Float32Array; maps: NdArray<Float32Array> },
): Promise<Cells> {
  const id = plan.table.ids[row]!;
  const size = plan.sizes.get(id)!;
  const originalSize: [number, number] = [size.height, size.width];
  const mask = await masks.cellsOf(id, { pixels, size: plan.imageSize, original: originalSize });
  try {
    const cells = intersectCams(seen, mask, { originalSize, spec: plan.spec });
    return { rows: cells.map((cell) => oofRow(id, size, cell)).join(''), count: cells.length };
  } catch (error) {
    throw new CellcamError('ERR_IMAGE', `image '${id}' with ${masks.nameOf(id)}: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** The network sees the next batch, and masks are read, while the cells of one are worked out (unless CELLCAM_BATCH_AHEAD=0). */
async function predictAll(
  plan: Plan,
  predictor: Predictor,
  masks: MaskSource,
  o: OofOptions,
  write: (rows: string) => Promise<unknown>,
): Promise<Omit<OofResult, 'path' | 'seen'>> {
  const signal = requireSignal(o.signal);
  const batch = requireInteger(o.batchSize ?? 32, 'batchSize', 1, 4096);
  const total = plan.table.ids.length;
  const result = { images: total, cells: 0, withoutCells: [] as string[] };
  const reader = new FieldReader(plan.index);
  const firsts = Array.from({ length: Math.ceil(total / batch) }, (_, i) => i * batch);
  const predicted = async (first: number) => {
    const images = await readBatch(reader, plan.index, first, Math.min(batch, total - first));
    return { images, ...(await predictor.predict(images)) };
  };
  try {
    for await (const outcome of inOrder(firsts, switchedOn('CELLCAM_BATCH_AHEAD') ? 2 : 1, predicted, signal)) {
      const { images, logits, maps } = valueOf(outcome);
      const cellsAt = (i: number) =>
        cellsOf(plan, masks, outcome.item + i, imageOf(images, i).data, {
          logits: imageOf(logits, i).data,
          maps: imageOf(maps, i),
        });
      const rows = Array.from({ length: images.shape[0]! }, (_, i) => i);
      for await (const found of inOrder(rows, availableParallelism(), cellsAt, signal)) {
        const cells = valueOf(found);
        await write(cells.rows);
        const row = outcome.item + found.item;
        const id = plan.table.ids[row]!;
        result.cells += cells.count;
        if (cells.count === 0) result.withoutCells.push(id);
        o.onProgress?.({ done: row + 1, total, cells: result.cells, id });
      }
    }
    return result;
  } finally {
    reader.close();
  }
}

/**
 * Predicts the cells of a fold's validation images (or of a holdout table) and writes them as one CSV row a cell under
 * `<home>/<oofFolder>/<model name>/`: `oof_<fold>.csv` or `holdout.csv`. The model's name is that of the folder that training put
 * the weights in, else made of the options. The file appears whole or not at all.
 * An image without cells has no row; it is named in the result.
 * @throws CellcamError, naming the image that cannot be predicted
 */
export async function generateOof(o: OofOptions): Promise<OofResult> {
  if (typeof o !== 'object' || o === null) throw invalidArgument('an object', 'options', o);
  const plan = await oofPlan(o);
  const own = modelName({
    mtype: o.mtype ?? 'siamese',
    backbone: o.backbone ?? 'seresnext50_32x4d',
    imageSize: plan.imageSize,
    cropSize: o.cropSize ?? Math.min(384, plan.imageSize),
    folds: plan.folds,
    precision: o.precision ?? 'auto',
    spec: plan.spec,
  });
  const name = trainedFold(plan.weights[0]!)?.model ?? own;
  const folder = join(plan.homes.home, o.oofFolder ?? 'oof', name);
  const path = join(folder, plan.fold === 0 ? 'holdout.csv' : `oof_${plan.fold}.csv`);
  using predictor = await Predictor.create({
    backbone: o.backbone ?? 'seresnext50_32x4d',
    weights: plan.weights,
    device: o.device,
    precision: o.precision,
    spec: plan.spec,
  });
  using masks = await maskSource(plan.masks, {
    segmenter: { ...(o.segmenter ?? { method: 'builtin' }), spec: plan.spec },
    cache: o.maskCache ?? join(plan.homes.home, 'cache', 'masks'),
  });
  for (const id of plan.table.ids) masks.check(id);
  if (!existsSync(folder)) mkdirSync(folder, { recursive: true });
  let result: Omit<OofResult, 'path' | 'seen'> | undefined;
  await fillDurably(path, async (file) => {
    await file.write(oofHeader(plan.spec));
    result = await predictAll(plan, predictor, masks, o, (rows) => file.write(rows));
  });
  return { path, seen: plan.seen, ...result! };
}
