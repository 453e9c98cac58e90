import { CellcamError } from '../errors';
import type { NativeOperation } from '../native';
import { invalidArgument, requireInteger, requireNumber } from '../options';

/** An operation by its name and parameters, as in albumentations 0.5.2; `docs/augmentation.md` lists them. */
export interface AugmentationStep {
  op: string;
  params: object;
}

type Params = Record<string, unknown>;

/** How an operation's parameters become the addon's list of numbers, and back. */
interface Operation {
  toValues(p: Params): number[];
  toParams(v: readonly number[]): object;
}

/** Parameters that are plain numbers: a name with its least and largest value each. */
function numbers(...fields: [name: string, min: number, max: number, fallback?: number][]): Operation {
  return {
    toValues: (p) => fields.map(([name, min, max, fallback]) => requireNumber(p[name] ?? fallback, name, min, max)),
    toParams: (v) => Object.fromEntries(fields.map(([name], i) => [name, v[i]])),
  };
}

function list(value: unknown, name: string, length?: number): number[] {
  if (!Array.isArray(value) || (length !== undefined && value.length !== length)) {
    throw invalidArgument(length === undefined ? 'an array of numbers' : `an array of ${length} numbers`, name, value);
  }
  return value.map((v, i) => requireNumber(v, `${name}[${i}]`, -Infinity));
}

function lists(value: unknown, name: string, width: number): number[] {
  if (!Array.isArray(value)) throw invalidArgument(`an array of arrays of ${width} numbers`, name, value);
  return value.flatMap((row, i) => list(row, `${name}[${i}]`, width));
}

function inRows(values: readonly number[], width: number): number[][] {
  return Array.from({ length: values.length / width }, (_, i) => values.slice(i * width, (i + 1) * width));
}

/** One of some odd sides. */
function side(value: unknown, choices: number[]): number {
  if (choices.includes(value as number)) return value as number;
  throw invalidArgument(`one of ${choices.join(', ')}`, 'ksize', value);
}

function motionKernel([k = 3, xs = 0, ys = 0, xe = 0, ye = 0]: readonly number[]): object {
  return { ksize: k, start_xy: [xs, ys], end_xy: [xe, ye] };
}

function motionValues(p: Params): number[] {
  const k = side(p.ksize, [3, 5]);
  const points = [...list(p.start_xy, 'start_xy', 2), ...list(p.end_xy, 'end_xy', 2)];
  return [k, ...points.map((v, i) => requireInteger(v, i < 2 ? 'start_xy' : 'end_xy', 0, k - 1))];
}

const SEED = ['seed', 0, Number.MAX_SAFE_INTEGER, 0] as [string, number, number, number];
const PIXELS = 1e6;

const OPERATIONS: Record<string, Operation> = {
  RandomCrop: {
    toValues: (p) => {
      const size = [requireInteger(p.height, 'height', 1), requireInteger(p.width, 'width', 1)];
      const start = [p.y1, p.x1].map((v, i) => (v === undefined ? -1 : requireInteger(v, i ? 'x1' : 'y1', 0)));
      const share = [p.h_start, p.w_start].map((v, i) => requireNumber(v ?? 0, i ? 'w_start' : 'h_start', 0, 1));
      return [...start, ...size, ...share];
    },
    toParams: ([y1, x1, height, width, h, w]) => ({ height, width, h_start: h, w_start: w, y1, x1 }),
  },
  RandomResizedCrop: {
    toValues: (p) => [
      ...['y1', 'x1', 'height', 'width'].map((name) => requireNumber(p[name], name, 0, PIXELS)),
      requireInteger(p.size, 'size', 1),
    ],
    toParams: ([y1, x1, height, width, size]) => ({ y1, x1, height, width, size }),
  },
  GaussNoise: numbers(['var', 0, 65025], SEED),
  CoarseDropout: {
    toValues: (p) => [
      requireInteger(p.fill ?? 0, 'fill', 0, 255),
      ...lists(p.holes_x1y1x2y2, 'holes_x1y1x2y2', 4).map((v) => requireInteger(v, 'holes_x1y1x2y2', 0)),
    ],
    toParams: ([fill, ...holes]) => ({ holes_x1y1x2y2: inRows(holes, 4), fill }),
  },
  IAAAdditiveGaussianNoise: numbers(['scale', 0, 255], SEED),
  HorizontalFlip: numbers(),
  RandomRotate90: {
    toValues: (p) => [requireInteger(p.factor, 'factor', 0, 3)],
    toParams: ([factor]) => ({ factor }),
  },
  GridDistortion: {
    toValues: (p) => {
      const steps = requireInteger(p.num_steps ?? 5, 'num_steps', 1, 1000);
      return [steps, ...list(p.stepsx, 'stepsx', steps + 1), ...list(p.stepsy, 'stepsy', steps + 1)];
    },
    toParams: ([steps = 5, ...v]) => ({
      num_steps: steps,
      stepsx: v.slice(0, steps + 1),
      stepsy: v.slice(steps + 1),
    }),
  },
  ShiftScaleRotate: numbers(['angle', -360, 360], ['scale', 1e-3, 1000], ['dx', -10, 10], ['dy', -10, 10]),
  ElasticTransform: {
    toValues: (p) => [
      requireNumber(p.alpha ?? 1, 'alpha', 0, PIXELS),
      requireNumber(p.sigma ?? 50, 'sigma', 1e-3, 1000),
      requireInteger(p.seed ?? 0, 'seed', 0),
      ...list(lists(p.jitter, 'jitter', 2), 'jitter', 6),
    ],
    toParams: ([alpha, sigma, seed, ...jitter]) => ({
      alpha,
      sigma,
      alpha_affine: 50,
      jitter: inRows(jitter, 2),
      seed,
    }),
  },
  OpticalDistortion: numbers(['k', -10, 10]),
  IAAAffine: numbers(['shear_deg', -80, 80]),
  GaussianBlur: { toValues: (p) => [side(p.ksize, [3, 5])], toParams: ([ksize]) => ({ ksize, sigma: 0 }) },
  MotionBlur: { toValues: motionValues, toParams: motionKernel },
  MedianBlur: { toValues: (p) => [side(p.ksize, [3, 5, 7])], toParams: ([ksize]) => ({ ksize }) },
  RandomGamma: numbers(['gamma', 1e-3, 1000]),
  RandomBrightnessContrast: numbers(['alpha', -255, 255], ['beta', -255, 255]),
  ChannelDropout: {
    toValues: (p) => list(p.channels, 'channels').map((v) => requireInteger(v, 'channels', 0)),
    toParams: (channels) => ({ channels: [...channels] }),
  },
};

/** @throws CellcamError ERR_INVALID_ARG for an unknown operation or wrong parameters */
export function operationValues(op: unknown, params: unknown): number[] {
  const known = typeof op === 'string' && Object.hasOwn(OPERATIONS, op) ? OPERATIONS[op] : undefined;
  if (known === undefined) throw invalidArgument(`one of ${Object.keys(OPERATIONS).join(', ')}`, 'op', op);
  if (typeof params !== 'object' || params === null)
    throw invalidArgument('an object', `params of ${op as string}`, params);
  try {
    return known.toValues(params as Params);
  } catch (error) {
    if (!(error instanceof CellcamError)) throw error;
    throw new CellcamError(error.code, `${op as string}: ${error.message}`, { cause: error });
  }
}

/** The step that the addon's numbers stand for. */
export function stepOf({ op, values }: NativeOperation): AugmentationStep {
  return { op, params: OPERATIONS[op]!.toParams(Array.from(values)) };
}
