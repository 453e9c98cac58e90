import { HPA, type DatasetSpec } from '../data/dataset_spec';
import { fromNative, toNative } from '../data/weights/native_weights';
import type { Weights } from '../data/weights/tensors';
import { readWeights, writeWeights } from '../data/weights/weights';
import { CellcamError, messageOf } from '../errors';
import { findBackbone } from './backbones';
import { beginWith, isWholeModel, pretrainedFile } from './pretrained';
import {
  native,
  nativeAsync,
  type LossValue,
  type NativeOutput,
  type NativePuzzleCam,
  type ParameterInfo,
} from '../native';
import {
  invalidArgument,
  requireBoolean,
  requireDevice,
  requireInteger,
  requireNdArray,
  requireNumber,
  requirePrecision,
  requireSignal,
  requireString,
  throwIfAborted,
  type Device,
  type NdArray,
  type Precision,
} from '../options';
import { lossWeights, type ComboLossOptions } from './combo_loss';

export interface PuzzleCamOptions {
  /** `listBackbones` names them. */
  backbone: string;
  /** Default: 19, the locations of the Human Protein Atlas. */
  numClasses?: number;
  /** Default: 4 (microtubules, protein, nucleus, ER). */
  inChannels?: number;
  /** Default: 'auto'. */
  device?: Device;
  /** The chance that a feature is left out in training, before the classifier; 0 to below 1. Default: 0. */
  dropout?: number;
  /** Of the initial weights, 0 to 2^53 - 1. Default: 0. */
  seed?: number;
  /**
   * Weights to start from instead: a file of this model, or of timm's backbone alone (its RGB stem is widened, the classifier starts
   * at random); a Hugging Face hub id such as timm/resnet18.a1_in1k; or `imagenet`, the backbone's own id.
   */
  pretrained?: string;
}

export interface ForwardOptions {
  /** Also the 2x2 tiles and their merged maps. Default: false. */
  tiled?: boolean;
  /** Batch norm by the batch's own statistics, moving the running ones. Default: false. */
  train?: boolean;
  /** Default: 'fp32'. */
  precision?: Precision;
  signal?: AbortSignal;
}

/** Gradients by parameter name, with the loss and the output they come from. */
export interface Gradients {
  loss: LossValue;
  output: NativeOutput;
  gradients: Record<string, NdArray<Float32Array>>;
}

/**
 * The network of Puzzle-CAM (arXiv 2101.11253): a backbone and a 1×1 classifier whose output is the activation map of each
 * class; logits are its spatial mean. Weights have the names of the Python original (`cnn1.mfeatures.…`, `cnn1.mclassifier.weight`).
 */
export class PuzzleCam {
  readonly backbone: string;
  readonly numClasses: number;
  readonly inChannels: number;
  readonly device: string;
  #native: NativePuzzleCam | undefined;

  private constructor(o: {
    backbone: string;
    numClasses: number;
    inChannels: number;
    device: string;
    dropout: number;
  }) {
    this.backbone = o.backbone;
    this.numClasses = o.numClasses;
    this.inChannels = o.inChannels;
    this.device = o.device;
    this.#native = native((a) => new a.PuzzleCam(o.backbone, o.numClasses, o.inChannels, o.device, o.dropout));
  }

  /** @throws CellcamError ERR_INVALID_ARG, ERR_NATIVE_MISSING, and what loadWeights throws for `pretrained` */
  static async create(o: PuzzleCamOptions): Promise<PuzzleCam> {
    if (typeof o !== 'object' || o === null) throw invalidArgument('an object with a backbone', 'options', o);
    const seed = requireInteger(o.seed ?? 0, 'seed', 0);
    const device = requireDevice(o.device ?? 'auto');
    const pretrained = o.pretrained === undefined ? undefined : requireString(o.pretrained, 'pretrained');
    const model = new PuzzleCam({
      backbone: requireString(o.backbone, 'backbone'),
      numClasses: requireInteger(o.numClasses ?? HPA.classes.length, 'numClasses', 1),
      inChannels: requireInteger(o.inChannels ?? HPA.channels.length, 'inChannels', 1),
      device: native((a) => a.resolve(device, 'auto')).device,
      dropout: requireNumber(o.dropout ?? 0, 'dropout', 0, 0.99),
    });
    try {
      if (pretrained === undefined) await model.#initialise(seed);
      else await model.#startFrom(pretrained, seed);
    } catch (error) {
      model.dispose();
      throw error;
    }
    return model;
  }

  async #initialise(seed: number): Promise<void> {
    await nativeAsync(() => this.handle.initialise(BigInt(seed)));
  }

  async #startFrom(source: string, seed: number): Promise<void> {
    const backbone = findBackbone(this.backbone);
    const path = await pretrainedFile(source, backbone);
    const weights = await readWeights(path);
    if (isWholeModel(weights)) return this.#assign(path, weights);
    await this.#initialise(seed);
    await this.#assign(path, beginWith(weights, this.weights(), backbone, this.inChannels));
  }

  /** A model for a data set. */
  static forSpec(spec: DatasetSpec, o: Omit<PuzzleCamOptions, 'numClasses' | 'inChannels'>): Promise<PuzzleCam> {
    return PuzzleCam.create({ ...o, numClasses: spec.classes.length, inChannels: spec.channels.length });
  }

  /** For the other classes of this library. @internal */
  get handle(): NativePuzzleCam {
    if (this.#native) return this.#native;
    throw new CellcamError('ERR_DISPOSED', 'the model was disposed');
  }

  /** Trainable parameters in the order of the state dict. */
  parameters(): ParameterInfo[] {
    return native(() => this.handle.parameters());
  }

  /**
   * Stops learning the parameters whose names begin with `prefix`, such as `cnn1.mfeatures.` for the whole backbone. Running
   * statistics of batch norm go on moving in training.
   * @returns how many parameters these are
   * @throws CellcamError ERR_INVALID_ARG if there is none
   */
  freeze(prefix: string): number {
    return this.#setTrainable(prefix, false);
  }

  /** Learns them again. */
  unfreeze(prefix: string): number {
    return this.#setTrainable(prefix, true);
  }

  #setTrainable(prefix: string, trainable: boolean): number {
    const found = native(() => this.handle.setTrainable(requireString(prefix, 'prefix'), trainable));
    if (found === 0) throw invalidArgument("the beginning of a parameter's name", 'prefix', prefix);
    return found;
  }

  /** A copy of the whole state, parameters and buffers, in PyTorch's state-dict order. */
  weights(): Weights {
    return fromNative(native(() => this.handle.tensors()));
  }

  /**
   * Takes over all parameters and buffers. Strict.
   * @throws CellcamError ERR_WEIGHTS that names every missing, unexpected or mis-shaped tensor; the model then stays as it was
   */
  async setWeights(weights: Weights): Promise<void> {
    await nativeAsync(() => this.handle.assign(toNative(weights)));
  }

  /** `setWeights` from a file; its errors name the file. */
  async loadWeights(path: string): Promise<void> {
    await this.#assign(path, await readWeights(path));
  }

  async #assign(path: string, weights: Weights): Promise<void> {
    if (Object.keys(weights).some((name) => name.startsWith('model.cnn1.'))) {
      throw new CellcamError(
        'ERR_WEIGHTS',
        `Expected weights in ${path} but it is a training state; use model_best beside it`,
      );
    }
    try {
      await this.setWeights(weights);
    } catch (error) {
      throw new CellcamError('ERR_WEIGHTS', `${path}: ${messageOf(error)}`, { cause: error });
    }
  }

  /** Writes the whole state, by the extension of the path, whole or not at all. */
  async saveWeights(path: string): Promise<void> {
    await writeWeights(path, this.weights());
  }

  #checkImages(images: unknown): void {
    requireNdArray(images, 'images', ['Float32Array'], ['B', this.inChannels, 'H', 'W']);
  }

  /**
   * @param images (B, C, H, W) float32, already normalised; for `tiled` H and W must be even
   * @returns logits (B, K) and maps (B, K, ceil(H/32), ceil(W/32)), before relu; tiled ones from the merged tiles if asked for
   */
  async forward(images: NdArray<Float32Array>, o: ForwardOptions = {}): Promise<NativeOutput> {
    const tiled = requireBoolean(o.tiled ?? false, 'tiled');
    const train = requireBoolean(o.train ?? false, 'train');
    const precision = requirePrecision(o.precision ?? 'fp32');
    const signal = requireSignal(o.signal);
    this.#checkImages(images);
    throwIfAborted(signal);
    const output = await nativeAsync(() => this.handle.forward(images, { tiled, train, precision }));
    throwIfAborted(signal);
    return output;
  }

  /**
   * The gradients of the ComboLoss by every parameter; no weight changes. With `train` batch norm works on the batch and
   * moves its running statistics.
   */
  async gradients(
    images: NdArray<Float32Array>,
    targets: NdArray<Float32Array | Uint8Array>,
    o: { loss?: ComboLossOptions; train?: boolean; precision?: Precision } = {},
  ): Promise<Gradients> {
    const train = requireBoolean(o.train ?? true, 'train');
    const precision = requirePrecision(o.precision ?? 'fp32');
    const weights = lossWeights(o.loss);
    this.#checkImages(images);
    requireNdArray(targets, 'targets', ['Float32Array', 'Uint8Array'], [images.shape[0]!, this.numClasses]);
    return nativeAsync(() => this.handle.gradients(images, targets, { train, precision, ...weights }));
  }

  /** Frees the native memory; using the model afterwards throws ERR_DISPOSED. A running job ends first. */
  dispose(): void {
    this.#native?.dispose();
    this.#native = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
