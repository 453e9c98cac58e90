import { CellcamError } from '../errors';
import { native, nativeAsync, type NativeAugmentation, type NativeStep } from '../native';
import {
  invalidArgument,
  requireDevice,
  requireInteger,
  requireNdArray,
  requireNumber,
  requireOneOf,
  type Device,
  type NdArray,
} from '../options';
import { operationValues, stepOf, type AugmentationStep } from './operations';

export type { AugmentationStep } from './operations';

export const AUGMENTATION_LEVELS = ['none', 'flips', 'full'] as const;
export type AugmentationLevel = (typeof AUGMENTATION_LEVELS)[number];

/** What training draws for every image. All but `level` goes beyond the Python original and is off by default. */
export interface AugmentationOptions {
  /** `full` (default): all that the original draws; `flips`: crops, flips and quarter turns; `none`: only the crop. */
  level?: AugmentationLevel;
  /** Instead of a plain crop, a square with a share of the image's area between these, resized to the crop. */
  resizedCrop?: [from: number, to: number] | null;
  /** Chance that one channel becomes 0. */
  channelDropout?: number;
  /** Chances that an image is mixed with its neighbour in the epoch: blended (mixup) or pasted into (CutMix), targets likewise. */
  mixup?: number;
  cutmix?: number;
  /** Of the Beta distribution of the share; default 1: even. */
  mixAlpha?: number;
}

/** @throws CellcamError ERR_INVALID_ARG */
export function augmentationOptions(o: AugmentationOptions = {}): NativeAugmentation {
  if (typeof o !== 'object' || o === null) throw invalidArgument('an object', 'augmentation', o);
  const mixup = requireNumber(o.mixup ?? 0, 'mixup', 0, 1);
  const crop: unknown = o.resizedCrop ?? [0, 0];
  if (!Array.isArray(crop) || crop.length !== 2) throw invalidArgument('[from, to]', 'resizedCrop', crop);
  const from = requireNumber(crop[0], 'resizedCrop[0]', 0, 1); // [0, 0]: none
  return {
    level: requireOneOf(o.level ?? 'full', 'level', AUGMENTATION_LEVELS),
    resizedCrop: [from, requireNumber(crop[1], 'resizedCrop[1]', from, 1)],
    channelDropout: requireNumber(o.channelDropout ?? 0, 'channelDropout', 0, 1),
    mixup,
    cutmix: requireNumber(o.cutmix ?? 0, 'cutmix', 0, 1 - mixup),
    mixAlpha: requireNumber(o.mixAlpha ?? 1, 'mixAlpha', 0.05, 4),
  };
}

export interface SampleOptions extends AugmentationOptions {
  /** Height and width of the image; default [512, 512]. */
  size?: [height: number, width: number];
  /** Side of the crop; default 384, at most the image. At least 32. */
  crop?: number;
  /** Channels of the image, for `channelDropout`; default 4. */
  channels?: number;
}

/**
 * What training draws for one image: its operations in order, by the names and with the parameters of albumentations 0.5.2.
 * `augmentWith` applies them. The same seed gives the same on every machine; different seeds are independent.
 * @param seed 0 to 2^64 - 1
 * @throws CellcamError ERR_INVALID_ARG
 */
export function sampleAugmentation(seed: number | bigint, o: SampleOptions = {}): AugmentationStep[] {
  const bits = typeof seed === 'bigint' ? seed : BigInt(requireInteger(seed, 'seed', 0));
  if (bits < 0n || bits >= 1n << 64n) throw invalidArgument('a seed from 0 to 2^64 - 1', 'seed', seed);
  const given: unknown = o.size ?? [512, 512];
  if (!Array.isArray(given) || given.length !== 2) throw invalidArgument('[height, width]', 'size', given);
  const size = given.map((n, i) => requireInteger(n, `size[${i}]`, 32, 16384)) as [number, number];
  const crop = size.map((n) => Math.min(n, o.crop ?? 384)) as [number, number];
  if (o.crop !== undefined) requireInteger(o.crop, 'crop', 32, Math.min(...size));
  const channels = requireInteger(o.channels ?? 4, 'channels', 1, 1024);
  const options = augmentationOptions(o);
  return native((a) => a.sampleAugmentation(bits, size, crop, channels, options)).map(stepOf);
}

/** A step with, optionally, its random field instead of one drawn from `params.seed`. */
export interface GivenStep extends AugmentationStep {
  /**
   * GaussNoise: (H, W, C); IAAAdditiveGaussianNoise: (H, W); ElasticTransform: displacements (2, H, W), dx before dy, in pixels.
   * One more dimension in front gives each image of the batch its own.
   */
  noise?: NdArray<Float32Array>;
}

interface Size {
  batch: number;
  height: number;
  width: number;
  channels: number;
}

/** The shape that a step's noise has for one image. */
function noiseShape(op: string, { height, width, channels }: Size): number[] | undefined {
  if (op === 'GaussNoise') return [height, width, channels];
  if (op === 'IAAAdditiveGaussianNoise') return [height, width];
  return op === 'ElasticTransform' ? [2, height, width] : undefined;
}

/** The noise with its batch dimension, (1 or B, …). */
function checkedNoise(op: string, noise: unknown, size: Size): NdArray<Float32Array> | null {
  if (noise === undefined || noise === null) return null;
  const one = noiseShape(op, size);
  if (one === undefined) throw invalidArgument('no noise', `noise of ${op}`, noise);
  const shape = (noise as NdArray<Float32Array>).shape;
  const trimmed =
    Array.isArray(shape) && op === 'IAAAdditiveGaussianNoise' && shape.at(-1) === 1 ? shape.slice(0, -1) : shape;
  const batched = Array.isArray(trimmed) && trimmed.length === one.length + 1;
  const whole = batched ? [size.batch, ...one] : one;
  const data = (noise as NdArray<Float32Array>).data;
  const checked = requireNdArray({ data, shape: trimmed }, `noise of ${op}`, ['Float32Array'], whole);
  return { data: checked.data, shape: batched ? whole : [1, ...one] };
}

/** Where a crop begins: as given, or the share of the room that there is. */
function placeCrop(values: number[], { height, width }: Size): number[] {
  const [y1 = 0, x1 = 0, h = 0, w = 0, down = 0, right = 0] = values;
  const y = y1 >= 0 ? y1 : Math.floor((height - h) * down);
  const x = x1 >= 0 ? x1 : Math.floor((width - w) * right);
  if (y + h <= height && x + w <= width) return [y, x, h, w, down, right];
  throw new CellcamError(
    'ERR_INVALID_ARG',
    `Expected a crop inside the ${height} × ${width} image but received ${h} × ${w} at row ${y}, column ${x}`,
  );
}

/** The size after a step. */
function sizeAfter(op: string, values: number[], size: Size): Size {
  if (op === 'RandomCrop') return { ...size, height: values[2]!, width: values[3]! };
  if (op === 'RandomResizedCrop') return { ...size, height: values[4]!, width: values[4]! };
  const turned = op === 'RandomRotate90' && values[0]! % 2 === 1;
  return turned ? { ...size, height: size.width, width: size.height } : size;
}

/** A chain as one list: `chain` steps are taken apart. */
function flattened(steps: unknown): GivenStep[] {
  if (!Array.isArray(steps)) throw invalidArgument('an array of { op, params }', 'op', steps);
  return steps.flatMap((step: GivenStep) =>
    step?.op === 'chain' ? flattened((step.params as { steps?: unknown })?.steps) : [step],
  );
}

function checkedSteps(steps: unknown, start: Size): NativeStep[] {
  let size = start;
  return flattened(steps).map((step) => {
    const raw = operationValues(step?.op, step?.params);
    const values = step.op === 'RandomCrop' ? placeCrop(raw, size) : raw;
    const channel = step.op === 'ChannelDropout' ? values.find((c) => c >= size.channels) : undefined;
    if (channel !== undefined) throw invalidArgument(`channels below ${size.channels}`, 'channels', channel);
    const checked = { op: step.op, values: Float64Array.from(values), noise: checkedNoise(step.op, step.noise, size) };
    size = sizeAfter(step.op, values, size);
    return checked;
  });
}

/**
 * Applies operations one after the other to every image of a batch, with the code that training runs.
 * @param images (B, H, W, C) uint8
 * @param op the chain, such as `sampleAugmentation` returns. Noise without a field of its own is drawn from `params.seed` (0 where
 *   absent), plus the image's place in the batch.
 * @returns (B, h, w, C) uint8
 * @throws CellcamError ERR_INVALID_ARG
 */
export async function augmentWith(
  images: NdArray<Uint8Array>,
  op: GivenStep[],
  o: { device?: Device } = {},
): Promise<NdArray<Uint8Array>> {
  const { shape } = requireNdArray(images, 'images', ['Uint8Array'], ['B', 'H', 'W', 'C']);
  const [batch, height, width, channels] = shape as [number, number, number, number];
  if (images.data.length === 0) throw invalidArgument('at least one pixel', 'images.data', images.data);
  const steps = checkedSteps(op, { batch, height, width, channels });
  const device = requireDevice(o.device ?? 'auto');
  return nativeAsync((a) => a.augmentWith(images, steps, device, false));
}
