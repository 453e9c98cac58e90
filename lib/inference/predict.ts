import { mkdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { dirname } from 'node:path';
import { cellShapes } from '../cells/enlarged_masks';
import { readFieldImage, type FieldImage } from '../cells/field_image';
import { intersectCams, type CellPrediction, type IntersectionOptions } from '../cells/cam_intersection';
import { maskSource, type MaskSource } from '../cells/mask_source';
import { encodeRuns } from '../cells/run_lengths';
import { writeError } from '../data/durable';
import { inOrder, refusal } from '../data/in_order';
import { CellcamError, messageOf } from '../errors';
import { throwIfAborted, type NdArray } from '../options';
import { switchedOn } from '../switches';
import { cellCrops } from './cell_crops';
import { Journal, journalPath, summarise, type PredictedCell } from './prediction_journal';
import { mergePredictions, type TablesResult } from './prediction_tables';
import { Predictor } from './predictor';
import { headerOf, predictPlan, type Plan, type PredictOptions } from './predict_plan';

export type { PredictOptions } from './predict_plan';

export interface PredictResult extends TablesResult {
  /** Fields that an earlier run had predicted. */
  resumed: number;
}

/** A field on its way. */
interface Work {
  id: string;
  field: FieldImage;
  cells: NdArray<Uint16Array>;
}

/** Clears the cells that touch the field's edge. */
function withoutBorderCells({ data, shape }: NdArray<Uint16Array>): NdArray<Uint16Array> {
  const [height, width] = shape as [number, number];
  const cut = new Set<number>();
  for (let x = 0; x < width; x++) cut.add(data[x]!).add(data[(height - 1) * width + x]!);
  for (let y = 0; y < height; y++) cut.add(data[y * width]!).add(data[(y + 1) * width - 1]!);
  return { data: data.map((v) => (cut.has(v) ? 0 : v)), shape };
}

async function prepare(plan: Plan, masks: MaskSource, id: string): Promise<Work> {
  const field = await readFieldImage(plan.imagesFolder, id, plan.imageSize, plan.spec);
  const cells = await masks.cellsOf(id, field);
  return { id, field, cells: plan.border === 'drop' ? withoutBorderCells(cells) : cells };
}

function stack(images: Uint8Array[], size: number): NdArray<Uint8Array> {
  const bytes = images[0]!.length;
  const data = new Uint8Array(images.length * bytes);
  images.forEach((pixels, i) => data.set(pixels, i * bytes));
  return { data, shape: [images.length, size, size, bytes / (size * size)] };
}

/** Step 2: the image-level probabilities of each cell alone, by its number. */
async function seeCellsAlone(plan: Plan, predictor: Predictor, work: Work): Promise<Map<number, Float32Array>> {
  const classes = plan.spec.classes.length;
  const probabilities = new Map<number, Float32Array>();
  let crops: { cellId: number; pixels: Uint8Array }[] = [];
  const flush = async (): Promise<void> => {
    if (crops.length === 0) return;
    const pixels = crops.map((crop) => crop.pixels);
    const { logits } = await predictor.predict(stack(pixels, plan.cropSize));
    crops.forEach(({ cellId }, i) => {
      const own = logits.data.slice(i * classes, (i + 1) * classes);
      if (!own.every(Number.isFinite)) throw new CellcamError('ERR_IMAGE', `image '${work.id}': the network's output for cell ${cellId} is not finite`); // prettier-ignore
      probabilities.set(
        cellId,
        own.map((x) => 1 / (1 + Math.exp(-x))),
      );
    });
    crops = [];
  };
  for await (const crop of cellCrops(work.field, work.cells, plan.cropSize)) {
    crops.push(crop);
    if (crops.length === plan.batch) await flush();
  }
  await flush();
  return probabilities;
}

interface Seen {
  logits: Float32Array;
  maps: NdArray<Float32Array>;
}

function shareOut(plan: Plan, { id, field, cells }: Work, seen: Seen): CellPrediction[] {
  const o: IntersectionOptions = { originalSize: field.original, spec: plan.spec, ...plan.thresholds };
  try {
    return intersectCams(seen, cells, o);
  } catch (error) {
    throw new CellcamError('ERR_IMAGE', `image '${id}': ${messageOf(error)}`, { cause: error });
  }
}

/** float32 numbers as short decimals that read back the same. */
function plain(values: Float32Array): number[] {
  return Array.from(values, (v) => Number(v.toPrecision(9)));
}

function mean(a: Float32Array, b: Float32Array): Float32Array {
  return a.map((v, i) => (v + b[i]!) / 2);
}

async function finish(
  plan: Plan,
  cellPredictor: Predictor | undefined,
  work: Work,
  seen: Seen,
): Promise<PredictedCell[]> {
  const first = shareOut(plan, work, seen);
  const second = cellPredictor && first.length > 0 ? await seeCellsAlone(plan, cellPredictor, work) : undefined;
  const shapes = cellShapes(work.cells, work.field.original);
  return first.map(({ cellId, center, probabilities }, i) => {
    const { x1, y1, x2, y2, runs, area } = shapes[i]!;
    const alone = second?.get(cellId); // a cell of a larger mask may have no pixel at the field's size: step 1 alone then
    const both = plan.steps === 'both' ? { step1: plain(probabilities), ...(alone && { step2: plain(alone) }) } : {};
    const final = alone === undefined ? probabilities : plan.steps === '2' ? alone : mean(probabilities, alone);
    return {
      cellId,
      center,
      box: [x1, y1, x2, y2],
      area,
      mask: encodeRuns(runs),
      probabilities: plain(final),
      ...both,
    };
  });
}

/** Runs the networks over batches of fields while the batch before is being worked up. */
class Pipeline {
  #before: (() => Promise<void>) | undefined;
  #batch: Work[] = [];

  constructor(
    private readonly plan: Plan,
    private readonly predictor: Predictor,
    private readonly cellPredictor: Predictor | undefined,
    private readonly done: (work: Work, cells: PredictedCell[]) => Promise<void>,
  ) {}

  async add(work: Work): Promise<void> {
    this.#batch.push(work);
    if (this.#batch.length >= this.plan.batch) await this.flush();
  }

  /** Sends what is gathered to the network and finishes what was sent before. */
  async flush(): Promise<void> {
    const batch = this.#batch;
    this.#batch = [];
    const running = batch.length === 0 ? undefined : this.predictor.predict(stack(batch.map((w) => w.field.pixels), this.plan.imageSize)); // prettier-ignore
    running?.catch(() => undefined); // seen when it is awaited
    const before = this.#before;
    this.#before = undefined;
    await before?.();
    if (running === undefined) return;
    this.#before = async () => this.#finish(batch, await running);
    if (!switchedOn('CELLCAM_BATCH_AHEAD')) await this.flush();
  }

  async end(): Promise<void> {
    await this.flush();
    await this.flush();
  }

  async #finish(batch: Work[], { logits, maps }: Awaited<ReturnType<Predictor['predict']>>): Promise<void> {
    const [, classes, h, w] = maps.shape as [number, number, number, number];
    for (const [i, work] of batch.entries()) {
      const own = maps.data.subarray(i * classes * h * w, (i + 1) * classes * h * w);
      const seen = {
        logits: logits.data.subarray(i * classes, (i + 1) * classes),
        maps: { data: own, shape: [classes, h, w] },
      };
      await this.done(work, await finish(this.plan, this.cellPredictor, work, seen));
    }
  }
}

async function predictAll(
  plan: Plan,
  journal: Journal,
  predictor: Predictor,
  cellPredictor: Predictor | undefined,
  o: PredictOptions,
): Promise<void> {
  using masks = await maskSource(plan.masks, { segmenter: plan.segmenter, cache: plan.maskCache });
  const missing = plan.ids.filter((id) => !journal.done.has(id));
  let [done, cells] = [plan.ids.length - missing.length, 0];
  const tell = (id: string): void => o.onProgress?.({ done: ++done, total: plan.ids.length, cells, id });
  const pipeline = new Pipeline(plan, predictor, cellPredictor, async ({ id, field }, found) => {
    await journal.append({ id, width: field.original[1], height: field.original[0], cells: found });
    cells += found.length;
    tell(id);
  });
  const workers = availableParallelism();
  for await (const outcome of inOrder(missing, workers, (id) => prepare(plan, masks, id), plan.signal)) {
    if ('error' in outcome) {
      const refused = refusal(outcome.error);
      await pipeline.end(); // the journal keeps the order of the ids
      await journal.append({ id: outcome.item, refused });
      tell(outcome.item);
    } else {
      await pipeline.add(outcome.value);
    }
  }
  await pipeline.end();
}

async function predictors(plan: Plan, o: PredictOptions): Promise<{ fields: Predictor; cells: Predictor | undefined }> {
  const make = (weights: Plan['weights']) =>
    Predictor.create({
      backbone: '',
      weights,
      tta: plan.tta,
      device: o.device,
      precision: o.precision,
      spec: plan.spec,
    });
  const fields = await make(plan.weights);
  try {
    if (plan.steps === '1') return { fields, cells: undefined };
    return { fields, cells: plan.cellWeights === plan.weights ? fields : await make(plan.cellWeights) };
  } catch (error) {
    fields.dispose();
    throw error;
  }
}

/**
 * Predicts every cell of a folder of fields: cells by masks or segmentation, step 1 by activation maps, step 2 each cell alone, and their
 * mean. Writes `submission.csv` and tables of cells into `output`; a shard only its part. Fields come one by one, so that memory does not
 * grow with their number; a run that was ended goes on where it was. A field whose files or mask cannot be used is listed in the result,
 * and the others go on.
 * @throws CellcamError ERR_INVALID_ARG, ERR_FILE_NOT_FOUND, ERR_WEIGHTS, ERR_WRITE; the signal's reason when aborted
 */
export async function predictCells(o: PredictOptions): Promise<PredictResult> {
  const plan = await predictPlan(o);
  throwIfAborted(plan.signal);
  const path = journalPath(plan.output, plan.shard);
  await mkdir(dirname(path), { recursive: true }).catch((error: unknown) => {
    throw writeError(path, error);
  });
  const journal = await Journal.open(path, headerOf(plan));
  const resumed = plan.ids.filter((id) => journal.done.has(id)).length;
  try {
    if (resumed < plan.ids.length) {
      const { fields, cells } = await predictors(plan, o);
      try {
        await predictAll(plan, journal, fields, cells, o);
      } finally {
        fields.dispose();
        cells?.dispose();
      }
    }
  } finally {
    await journal.close();
  }
  if (plan.shard.count > 1) return { ...(await summarise(path)), files: [path], resumed };
  return { ...(await mergePredictions(plan.output, { cells: plan.cells })), resumed };
}
