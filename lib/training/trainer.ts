import { HPA, datasetSpec, type DatasetSpec } from '../data/dataset_spec';
import type { EpochFeed } from '../data/loader';
import { fromNative, toNative } from '../data/weights/native_weights';
import { CellcamError } from '../errors';
import { lossWeights, type ComboLossOptions } from '../model/combo_loss';
import { PuzzleCam } from '../model/puzzle_cam';
import {
  native,
  nativeAsync,
  type EpochTally,
  type LossValue,
  type NativeTrainer,
  type RateGroup,
  type StepProgress,
} from '../native';
import {
  abortReason,
  invalidArgument,
  requireInteger,
  requireNdArray,
  requireNumber,
  requirePrecision,
  requireSignal,
  requireString,
  throwIfAborted,
  type NdArray,
  type Precision,
} from '../options';
import type { EpochMetrics } from '../report/curves';
import { augmentationOptions, type AugmentationOptions } from './augmentation';
import { epochMetrics } from './history';
import { readState, writeState, type TrainerState } from './snapshots';

export interface TrainerOptions {
  model: PuzzleCam;
  /** Means and standard deviations of the channels. Default: HPA. */
  spec?: DatasetSpec;
  loss?: ComboLossOptions;
  /** Default: 'auto'. */
  precision?: Precision;
  /** What is drawn for every training image. Default: all that the Python original draws. */
  augmentation?: AugmentationOptions;
  /** Of the augmentation. Default: 0. */
  seed?: number | bigint;
  /** Adam's; default 0.9, 0.999 and 1e-8. */
  beta1?: number;
  beta2?: number;
  epsilon?: number;
  /** Learning rates of their own for parts of the model, as factors of the one given to every step. */
  groups?: RateGroup[];
}

/** A batch of fields: images (B, H, W, C) uint8 and targets (B, classes), 0 or 1. */
export interface Batch {
  images: NdArray<Uint8Array>;
  targets: NdArray<Uint8Array>;
}

/** An epoch that loader threads feed. */
export interface FedEpoch {
  feed: EpochFeed;
  targets: NdArray<Uint8Array>;
  batch: number;
  size: number;
  firstBatch?: number;
  start?: EpochTally | null;
}

export interface EpochOptions {
  /** Number of the epoch, from 1: with the seed it decides the augmentation. Default: 1. */
  epoch?: number;
  /** Training only: one rate, or one a step. Default: 3e-4. */
  learningRate?: number | Float64Array;
  /** Side of the random crop; default: the whole image. */
  crop?: number;
  /** Default: true; false leaves only the crop. */
  augment?: boolean;
  /** Steps between progress reports. Default: 20. */
  reportEvery?: number;
  onProgress?: (p: StepProgress) => void;
  signal?: AbortSignal;
}

/**
 * Owns the optimiser (Adam) and the loss scaler of a model, and runs its epochs on a thread of their own.
 * The model may not be used otherwise while an epoch runs.
 */
export class Trainer {
  readonly model: PuzzleCam;
  readonly spec: DatasetSpec;
  readonly precision: string;
  #native: NativeTrainer | undefined;

  constructor(o: TrainerOptions) {
    if (!(o?.model instanceof PuzzleCam)) throw invalidArgument('a PuzzleCam', 'model', o?.model);
    this.model = o.model;
    this.spec = datasetSpec(o.spec ?? HPA);
    const { classes, channels } = this.spec;
    if (classes.length !== o.model.numClasses || channels.length !== o.model.inChannels) {
      throw new CellcamError(
        'ERR_INVALID_ARG',
        `Expected a model of ${classes.length} classes and ${channels.length} channels, as the spec has, ` +
          `but received one of ${o.model.numClasses} and ${o.model.inChannels}`,
      );
    }
    const precision = requirePrecision(o.precision ?? 'auto');
    this.precision = native((a) => a.resolve(o.model.device, precision)).precision;
    const options = {
      ...lossWeights(o.loss),
      precision: this.precision,
      beta1: requireNumber(o.beta1 ?? 0.9, 'beta1', 0, 1),
      beta2: requireNumber(o.beta2 ?? 0.999, 'beta2', 0, 1),
      epsilon: requireNumber(o.epsilon ?? 1e-8, 'epsilon', 0),
      mean: channels.map((c) => c.mean),
      std: channels.map((c) => c.std),
      groups: requireGroups(o.groups ?? []),
      augmentation: augmentationOptions(o.augmentation),
      seed: BigInt.asUintN(64, BigInt(o.seed ?? 0)),
    };
    this.#native = native((a) => new a.Trainer(this.model.handle, options));
  }

  get #handle(): NativeTrainer {
    if (this.#native) return this.#native;
    throw new CellcamError('ERR_DISPOSED', 'the trainer was disposed');
  }

  /**
   * One pass of optimiser steps.
   * @param batches batches at hand, or an epoch that loader threads feed (no JavaScript runs between its steps)
   * @throws the signal's reason when aborted, ERR_TRAINING for a loss that is not a number, and what a loader failed with
   */
  async trainEpoch(batches: AsyncIterable<Batch> | Iterable<Batch>, o: EpochOptions = {}): Promise<EpochMetrics> {
    return this.#overBatches(true, batches, o);
  }

  /** One pass without learning, over whole images. */
  async validate(batches: AsyncIterable<Batch> | Iterable<Batch>, o: EpochOptions = {}): Promise<EpochMetrics> {
    return this.#overBatches(false, batches, o);
  }

  /** `trainEpoch` or `validate` of loader threads' batches; a stopped epoch comes back incomplete and can go on from its tally. */
  async runFed(train: boolean, fed: FedEpoch, o: EpochOptions = {}): Promise<EpochTally> {
    const signal = requireSignal(o.signal);
    const steps = Math.ceil(fed.targets.shape[0]! / fed.batch);
    const stop = (): void => this.#handle.stop();
    let thrown: { error: unknown } | undefined;
    const onProgress = (p: StepProgress): void => {
      try {
        o.onProgress?.(p);
      } catch (error) {
        thrown ??= { error };
        stop();
      }
    };
    const run = nativeAsync(() =>
      this.#handle.runEpoch(
        fed.feed.queue,
        {
          train,
          epoch: requireInteger(o.epoch ?? 1, 'epoch', 1),
          batch: fed.batch,
          height: fed.size,
          width: fed.size,
          crop: requireCrop(o.crop ?? fed.size, fed.size),
          augment: o.augment ?? true,
          targets: fed.targets,
          learningRates: rates(train, o.learningRate, steps),
          firstBatch: fed.firstBatch ?? 0,
          reportEvery: requireInteger(o.reportEvery ?? 20, 'reportEvery', 1),
        },
        fed.start ?? null,
        onProgress,
      ),
    );
    signal?.addEventListener('abort', stop, { once: true });
    if (signal?.aborted) stop();
    const tally = await run.finally(() => signal?.removeEventListener('abort', stop));
    if (thrown) throw thrown.error;
    return tally;
  }

  async #overBatches(
    train: boolean,
    batches: AsyncIterable<Batch> | Iterable<Batch>,
    o: EpochOptions,
  ): Promise<EpochMetrics> {
    const tallies: EpochTally[] = [];
    const targets: Uint8Array[] = [];
    const { classes } = this.spec;
    for await (const batch of batches) {
      throwIfAborted(o.signal);
      tallies.push(await this.#oneBatch(train, batch, o, tallies.length));
      targets.push(batch.targets.data);
    }
    if (o.signal?.aborted) throw abortReason(o.signal);
    if (tallies.length === 0) throw invalidArgument('at least one batch', 'batches', batches);
    const merged = mergeTallies(tallies, classes.length);
    return epochMetrics(merged, { data: concatenate(targets), shape: [merged.images, classes.length] });
  }

  async #oneBatch(train: boolean, { images, targets }: Batch, o: EpochOptions, step: number): Promise<EpochTally> {
    const [b, h, w] = requireNdArray(
      images,
      'images',
      ['Uint8Array'],
      ['B', 'H', 'W', this.spec.channels.length],
    ).shape;
    requireNdArray(targets, 'targets', ['Uint8Array'], [b!, this.spec.classes.length]);
    if (h !== w) throw invalidArgument('square images', 'images', images);
    const ring = new SharedArrayBuffer(images.data.byteLength);
    const memory = new Uint8Array(ring);
    memory.set(images.data);
    const queue = native(
      (a) =>
        new a.BatchQueue({
          ring,
          memory: { data: memory, shape: [memory.length] },
          slots: 1,
          slotBytes: memory.length,
          first: 0,
          end: 1,
        }),
    );
    try {
      const lease = queue.acquire(0)!;
      queue.publish(lease.batch, lease.slot);
      const rate = typeof o.learningRate === 'object' ? o.learningRate[step] : o.learningRate;
      const fed = { feed: { queue, close: () => queue.close() }, targets, batch: b!, size: h! };
      // Each batch draws from streams of its own, as its images' places in the epoch would give them.
      return await this.runFed(train, fed, {
        ...o,
        epoch: ((o.epoch ?? 1) << 16) + step + 1,
        learningRate: rate,
        reportEvery: 1,
      });
    } finally {
      queue.close();
    }
  }

  /** One optimiser step on a normalised batch (B, C, H, W) float32 with targets (B, classes). One that fails midway may have moved part of the model. */
  async step(
    images: NdArray<Float32Array>,
    targets: NdArray<Float32Array | Uint8Array>,
    learningRate = 3e-4,
  ): Promise<LossValue> {
    const { shape } = requireNdArray(images, 'images', ['Float32Array'], ['B', this.model.inChannels, 'H', 'W']);
    requireNdArray(targets, 'targets', ['Float32Array', 'Uint8Array'], [shape[0]!, this.model.numClasses]);
    return nativeAsync(() => this.#handle.step(images, targets, requireNumber(learningRate, 'learningRate', 0)));
  }

  /** Everything that learning has changed: weights, moments, loss scale. */
  state(): TrainerState {
    return {
      model: this.model.weights(),
      optimiser: fromNative(native(() => this.#handle.optimiserState())),
      scaler: native(() => this.#handle.scalerState()),
    };
  }

  /** Takes over a state of the same kind of model. @throws CellcamError ERR_WEIGHTS */
  async setState(state: TrainerState): Promise<void> {
    await this.model.setWeights(state.model);
    native(() => this.#handle.loadOptimiserState(toNative(state.optimiser)));
    native(() => this.#handle.loadScalerState(state.scaler));
  }

  /** Writes the state to a .safetensors file, whole or not at all. */
  async saveState(path: string): Promise<void> {
    await writeState(path, this.state(), {});
  }

  async loadState(path: string): Promise<void> {
    await this.setState((await readState(path)).state);
  }

  /** Ends a running epoch at once, leaving the model unusable, and frees the optimiser's memory. The model stays its owner's. */
  dispose(): void {
    this.#native?.dispose();
    this.#native = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function requireGroups(groups: unknown): RateGroup[] {
  if (!Array.isArray(groups)) throw invalidArgument('an array of { prefix, factor }', 'groups', groups);
  return groups.map((group: Partial<RateGroup>, i) => ({
    prefix: requireString(group?.prefix, `groups[${i}].prefix`),
    factor: requireNumber(group.factor, `groups[${i}].factor`, 0),
  }));
}

function requireCrop(crop: number, size: number): number {
  requireInteger(crop, 'crop', 1, size);
  if (crop % 64 === 0) return crop;
  throw invalidArgument('a multiple of 64, so that the maps of image and tiles have one size,', 'crop', crop);
}

function rates(train: boolean, rate: number | Float64Array | undefined, steps: number): NdArray<Float64Array> {
  if (!train) return { data: new Float64Array(0), shape: [0] };
  const data =
    typeof rate === 'object' ? rate : new Float64Array(steps).fill(requireNumber(rate ?? 3e-4, 'learningRate', 0));
  if (data.length !== steps) throw invalidArgument(`${steps} learning rates`, 'learningRate', rate);
  return { data, shape: [steps] };
}

function concatenate(parts: Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

function mergeTallies(tallies: EpochTally[], classes: number): EpochTally {
  const images = tallies.reduce((n, t) => n + t.images, 0);
  const sums = new Float64Array(4);
  const probabilities = new Float32Array(images * classes);
  let at = 0;
  for (const tally of tallies) {
    tally.sums.data.forEach((v, i) => (sums[i]! += v));
    probabilities.set(tally.probabilities.data, at);
    at += tally.probabilities.data.length;
  }
  const shape = [images, classes];
  return {
    sums: { data: sums, shape: [4] },
    probabilities: { data: probabilities, shape },
    images,
    nextBatch: tallies.length,
    complete: true,
  };
}
