import { isMainThread } from 'node:worker_threads';
import { CellcamError, codeOf, messageOf, type ErrorCode } from './errors';
import { loadNativeLibrary } from './native_library';
import type { NdArray, Precision } from './options';

/** A tensor as weight files hold it: row-major little-endian bytes. */
export interface NativeTensor {
  name: string;
  dtype: string;
  shape: number[];
  data: Uint8Array;
}

export interface ParameterInfo {
  name: string;
  shape: number[];
  dtype: string;
  /** False while it is frozen. */
  trainable: boolean;
}

export interface NativeOutput {
  logits: NdArray<Float32Array>;
  maps: NdArray<Float32Array>;
  tiledLogits?: NdArray<Float32Array>;
  tiledMaps?: NdArray<Float32Array>;
}

export interface LossValue {
  total: number;
  full: number;
  tiled: number;
  l1: number;
}

export interface LossWeights {
  alpha: number;
  beta: number;
  gamma: number;
}

export interface NativeLesson {
  loss: LossValue;
  output: NativeOutput;
  gradients: Record<string, NdArray<Float32Array>>;
}

export interface NativePuzzleCam {
  initialise(seed: bigint): Promise<void>;
  parameters(): ParameterInfo[];
  tensors(): NativeTensor[];
  assign(tensors: NativeTensor[]): Promise<void>;
  /** How many parameters begin with `prefix`. */
  setTrainable(prefix: string, trainable: boolean): number;
  forward(
    images: NdArray<Float32Array>,
    o: { tiled: boolean; train: boolean; precision: string },
  ): Promise<NativeOutput>;
  gradients(
    images: NdArray<Float32Array>,
    targets: NdArray<Float32Array | Uint8Array>,
    o: { train: boolean; precision: string } & LossWeights,
  ): Promise<NativeLesson>;
  dispose(): void;
}

export interface NativeBatchQueue {
  readonly id: number;
  /** A slot to fill, null when none is free yet, undefined when all batches are done or the queue is closed. */
  acquire(waitMs: number): { batch: number; slot: number } | null | undefined;
  publish(batch: number, slot: number): void;
  /** The next batch in order, null when none is ready yet, undefined at the end or when the queue is closed; throws what a loader failed with. */
  take(): { batch: number; slot: number } | null | undefined;
  /** Gives a taken slot back. */
  release(batch: number, slot: number): void;
  fail(code: string, message: string): void;
  /** Whether loader threads still write into the ring: what they had begun when it was closed. */
  close(): boolean;
}

/** Multiplies the learning rate of the parameters whose names begin with `prefix`; of several the first counts. */
export interface RateGroup {
  prefix: string;
  factor: number;
}

/** What training draws; checked, with every default filled in. */
export interface NativeAugmentation {
  level: 'none' | 'flips' | 'full';
  resizedCrop: [from: number, to: number];
  channelDropout: number;
  mixup: number;
  cutmix: number;
  mixAlpha: number;
}

/** An operation and its numbers, as native/training/augment/operation.h lists them. */
export interface NativeOperation {
  op: string;
  values: Float64Array;
}

export interface NativeStep extends NativeOperation {
  /** (1 or B, …) instead of a drawn field. */
  noise: NdArray<Float32Array> | null;
}

export interface TrainerOptions extends LossWeights {
  precision: string;
  beta1: number;
  beta2: number;
  epsilon: number;
  mean: number[];
  std: number[];
  groups: RateGroup[];
  augmentation: NativeAugmentation;
  seed: bigint;
}

export interface EpochRequest {
  train: boolean;
  epoch: number;
  batch: number;
  height: number;
  width: number;
  crop: number;
  augment: boolean;
  /** (n, classes) in the order of the epoch. */
  targets: NdArray<Uint8Array>;
  /** One a step; empty for validation. */
  learningRates: NdArray<Float64Array>;
  firstBatch: number;
  reportEvery: number;
}

/** Sums over the images seen so far; with it an interrupted epoch goes on. */
export interface EpochTally {
  /** (4): total, full, tiled and l1 loss, each summed over images. */
  sums: NdArray<Float64Array>;
  /** (n, classes) sigmoid of the logits, in the order of the epoch. */
  probabilities: NdArray<Float32Array>;
  images: number;
  nextBatch: number;
  complete: boolean;
}

export interface StepProgress {
  step: number;
  steps: number;
  images: number;
  /** Mean of the epoch so far. */
  loss: number;
}

export interface ScalerState {
  scale: number;
  growthTracker: number;
}

export interface NativeTrainer {
  runEpoch(
    queue: NativeBatchQueue,
    request: EpochRequest,
    start: EpochTally | null,
    onProgress: (p: StepProgress) => void,
  ): Promise<EpochTally>;
  step(
    images: NdArray<Float32Array>,
    targets: NdArray<Float32Array | Uint8Array>,
    learningRate: number,
  ): Promise<LossValue>;
  stop(): void;
  optimiserState(): NativeTensor[];
  loadOptimiserState(tensors: NativeTensor[]): void;
  scalerState(): ScalerState;
  loadScalerState(state: ScalerState): void;
  dispose(): void;
}

export interface NativePredictor {
  /** `flips`: averaged with the mirror images and the image turned by 180°. */
  predict(
    images: NdArray<Uint8Array>,
    flips: boolean,
  ): Promise<{ logits: NdArray<Float32Array>; maps: NdArray<Float32Array> }>;
  dispose(): void;
}

export interface NativeDpnUnet {
  /** (B, 3, H, W) with values 0…1 to the softmax of background, border and interior; leave them alone until it settles. */
  probabilities(images: NdArray<Float32Array>, precision: string): Promise<NdArray<Float32Array>>;
  dispose(): void;
}

/** Of a field, (h, w): 0 is background, and a nucleus has the number of its cell. */
export interface NativeInstances {
  nuclei: NdArray<Uint16Array>;
  cells: NdArray<Uint16Array>;
}

/** What the addon says of itself. */
export interface NativeDescription {
  /** LibTorch's version as it runs. */
  torch: string;
  /** Whether LibTorch sees a CUDA device. */
  cuda: boolean;
  devices: string[];
  /** What `auto` precision takes on this CPU. */
  cpuPrecision: Precision;
  /** LibTorch's own CPU threads. */
  threads: number;
}

/** What is known of a backbone. */
export interface BackboneInfo {
  name: string;
  outChannels: number;
  /** Pixels of the image a pixel of the maps, along each axis. */
  outputStride: number;
  /** Name of the convolution that sees the images. */
  stem: string;
  /** Hub id of its ImageNet weights. */
  pretrained: string;
}

export interface TrainingMemory {
  /** Numbers that are learned, without the classifier's. */
  parameters: number;
  /** Estimated bytes of a training step: weights, gradients, moments, and both passes' activations in float16. */
  trainingBytes: number;
}

/** The whole addon. */
export interface Addon {
  describe(): NativeDescription;
  backbones(): BackboneInfo[];
  trainingMemory(backbone: string, batch: number, size: number): Promise<TrainingMemory>;
  setDeterministic(on: boolean): void;
  setThreads(threads: number): void;
  /** Cancels and joins every training thread of the process. */
  finishRuns(): void;
  resolve(device: string, precision: string): { device: string; precision: string };
  /** Frees these buffers at once instead of at some later collection: their length becomes 0. */
  release(buffers: ArrayBuffer[]): void;
  resizeImage(image: NdArray<Float32Array | Uint8Array | Uint16Array>, height: number, width: number): Float32Array;
  /** Planes of one field, (h, w) each, to (size, size, planes); they must not be touched until it settles. */
  resizeField(planes: NdArray<Uint8Array | Uint16Array>[], size: number, dtype: 'uint8'): Promise<Uint8Array>;
  resizeField(planes: NdArray<Uint8Array | Uint16Array>[], size: number, dtype: 'float32'): Promise<Float32Array>;
  sampleAugmentation(
    seed: bigint,
    size: [height: number, width: number],
    crop: [height: number, width: number],
    channels: number,
    o: NativeAugmentation,
  ): NativeOperation[];
  /** `byTensors`: by the operations of other devices, also on the CPU. */
  augmentWith(
    images: NdArray<Uint8Array>,
    steps: NativeStep[],
    device: string,
    byTensors: boolean,
  ): Promise<NdArray<Uint8Array>>;
  comboLoss(
    output: NativeOutput,
    targets: NdArray<Float32Array | Uint8Array>,
    o: LossWeights,
  ): Promise<LossValue & { gradients: Partial<NativeOutput> }>;
  PuzzleCam: new (
    backbone: string,
    numClasses: number,
    inChannels: number,
    device: string,
    dropout: number,
  ) => NativePuzzleCam;
  /** Undoes the filters of a PNG's rows in place; false for filters that it does not have. */
  unfilter(rows: Uint8Array, height: number, rowBytes: number, sampleBytes: number): Promise<boolean>;
  /** floor(255·x) of values in [0, 1]; the place of the first value outside, or −1. */
  quantise(values: Float32Array, out: Uint8Array): number;
  /** Probability maps (h, w, 3) to instances (h, w); they must not be touched until it settles. */
  labelCells(
    nuclei: NdArray<Uint8Array>,
    cells: NdArray<Uint8Array>,
    scale: number,
    wrap: boolean,
  ): Promise<NativeInstances>;
  /** Planes (h, w) with values 0…1, without any network. */
  segmentQuickly(nuclei: NdArray<Float32Array>, cells: NdArray<Float32Array>[]): Promise<NativeInstances>;
  DpnUnet: new (weights: NativeTensor[], device: string) => NativeDpnUnet;
  BatchQueue: new (
    o:
      | {
          /** What owns the memory, kept alive as long as the queue. */
          ring: SharedArrayBuffer;
          memory: NdArray<Uint8Array>;
          slots: number;
          slotBytes: number;
          first: number;
          end: number;
        }
      | number,
  ) => NativeBatchQueue;
  Trainer: new (model: NativePuzzleCam, o: TrainerOptions) => NativeTrainer;
  Predictor: new (
    models: NativePuzzleCam[],
    o: { precision: string; mean: number[]; std: number[] },
  ) => NativePredictor;
}

let watched = false;

/** A process that ends in the middle of training waits for the block in hand, so that no thread runs in a LibTorch taken apart. */
function finishRunsAtExit(loaded: Addon): Addon {
  if (!watched && isMainThread) process.once('exit', () => loaded.finishRuns());
  watched = true;
  return loaded;
}

/** The addon, loaded on first use. Throws ERR_NATIVE_MISSING where it could not be built. */
export function addon(): Addon {
  return finishRunsAtExit(loadNativeLibrary() as Addon);
}

function asCellcamError(error: unknown, caller: Error): CellcamError {
  const known = new CellcamError((codeOf(error) ?? 'ERR_NATIVE') as ErrorCode, messageOf(error), { cause: error });
  known.stack = `${known.name}: ${known.message}\n${caller.stack?.split('\n').slice(2).join('\n') ?? ''}`;
  return known;
}

/** Runs a synchronous call of the addon; its errors become CellcamErrors. */
export function native<T>(call: (a: Addon) => T): T {
  const loaded = addon();
  try {
    return call(loaded);
  } catch (error) {
    throw asCellcamError(error, new Error());
  }
}

/** The same for a call that returns a promise; the error carries the caller's stack. */
export function nativeAsync<T>(call: (a: Addon) => Promise<T>): Promise<T> {
  const caller = new Error();
  const fail = (error: unknown): never => {
    throw error instanceof CellcamError ? error : asCellcamError(error, caller);
  };
  try {
    return call(addon()).catch(fail);
  } catch (error) {
    return Promise.reject(error instanceof CellcamError ? error : asCellcamError(error, caller));
  }
}
