import { HPA, datasetSpec, type DatasetSpec } from '../data/dataset_spec';
import { PuzzleCam } from '../model/puzzle_cam';
import { native, nativeAsync, type NativePredictor } from '../native';
import { CellcamError } from '../errors';
import {
  invalidArgument,
  requireNdArray,
  requireOneOf,
  requirePrecision,
  requireSignal,
  throwIfAborted,
  type Device,
  type NdArray,
  type Precision,
} from '../options';

export interface PredictorOptions {
  backbone: string;
  /** One or more weights files: logits and maps are averaged over them. A file can name a backbone of its own. */
  weights: (string | { backbone: string; file: string })[];
  /** `flips`: averages over the image, its two mirror images and the image turned by 180°, maps turned back. Default: `none`. */
  tta?: 'none' | 'flips';
  device?: Device;
  /** Default: 'auto'. */
  precision?: Precision;
  spec?: DatasetSpec;
}

/** Of a batch: logits (B, classes) and activation maps (B, classes, h, w) before relu. */
export interface Prediction {
  logits: NdArray<Float32Array>;
  maps: NdArray<Float32Array>;
}

/** An ensemble of trained models. */
export class Predictor {
  readonly spec: DatasetSpec;
  readonly #models: PuzzleCam[];
  readonly #flips: boolean;
  #native: NativePredictor | undefined;

  private constructor(models: PuzzleCam[], spec: DatasetSpec, precision: Precision, flips: boolean) {
    this.spec = spec;
    this.#flips = flips;
    this.#models = models;
    const mean = spec.channels.map((c) => c.mean);
    const std = spec.channels.map((c) => c.std);
    this.#native = native(
      (a) =>
        new a.Predictor(
          models.map((m) => m.handle),
          { precision, mean, std },
        ),
    );
  }

  /** @throws CellcamError ERR_FILE_NOT_FOUND or ERR_WEIGHTS that names the file */
  static async create(o: PredictorOptions): Promise<Predictor> {
    if (!Array.isArray(o?.weights) || o.weights.length === 0)
      throw invalidArgument('at least one file', 'weights', o?.weights);
    const spec = datasetSpec(o.spec ?? HPA);
    const precision = requirePrecision(o.precision ?? 'auto');
    const tta = requireOneOf(o.tta ?? 'none', 'tta', ['none', 'flips'] as const);
    const models: PuzzleCam[] = [];
    try {
      for (const given of o.weights) {
        const { backbone, file } = typeof given === 'string' ? { backbone: o.backbone, file: given } : given;
        models.push(await PuzzleCam.forSpec(spec, { backbone, device: o.device ?? 'auto', pretrained: file }));
      }
      return new Predictor(models, spec, precision, tta === 'flips');
    } catch (error) {
      for (const model of models) model.dispose();
      throw error;
    }
  }

  /** @param images (B, H, W, C) uint8; leave them alone until it settles */
  async predict(images: NdArray<Uint8Array>): Promise<Prediction> {
    requireNdArray(images, 'images', ['Uint8Array'], ['B', 'H', 'W', this.spec.channels.length]);
    const handle = this.#native;
    if (!handle) throw new CellcamError('ERR_DISPOSED', 'the predictor was disposed');
    return nativeAsync(() => handle.predict(images, this.#flips));
  }

  /** Predicts batch after batch, in order. */
  async *run(
    batches: AsyncIterable<NdArray<Uint8Array>> | Iterable<NdArray<Uint8Array>>,
    o: { signal?: AbortSignal } = {},
  ): AsyncGenerator<Prediction> {
    const signal = requireSignal(o.signal);
    for await (const batch of batches) {
      throwIfAborted(signal);
      yield await this.predict(batch);
    }
  }

  dispose(): void {
    this.#native?.dispose();
    this.#native = undefined;
    for (const model of this.#models) model.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
