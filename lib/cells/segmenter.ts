import { HPA, datasetSpec, type DatasetSpec } from '../data/dataset_spec';
import { toNative } from '../data/weights/native_weights';
import type { Weights } from '../data/weights/tensors';
import { readWeights } from '../data/weights/weights';
import { CellcamError, messageOf } from '../errors';
import { native, nativeAsync, type NativeDpnUnet } from '../native';
import {
  invalidArgument,
  requireDevice,
  requireNdArray,
  requireOneOf,
  requirePrecision,
  requireSignal,
  requireString,
  throwIfAborted,
  type Device,
  type NdArray,
  type Precision,
} from '../options';
import { enlargeMaps, shrinkField, toByte } from './full_scale';
import { labelCells, type Instances, type LabelCellsOptions } from './label_cells';

export interface HpaSegmenterOptions {
  method: 'hpa';
  /** Weights of HPA-Cell-Segmentation's networks: the published .pth files, or .safetensors. */
  nucleiWeights: string;
  cellWeights: string;
  device?: Device;
  /** Default: 'fp32', in which masks are the original's. 'auto' is faster where the device has bf16 or fp16 units. */
  precision?: Precision;
  /**
   * `fast`: the networks see the images as they are, best at 512 pixels. `full`: images of original size are shrunk to a quarter for the
   * networks, and cells are found at original size. Default: `fast`.
   */
  scale?: 'fast' | 'full';
  /** `original`: labels wrap at 256, as the original's do. Default: `none`. */
  compat?: LabelCellsOptions['compat'];
  spec?: DatasetSpec;
}

export type SegmenterOptions = { method: 'builtin'; spec?: DatasetSpec } | HpaSegmenterOptions;

export interface SegmentOptions {
  /** Height and width of each image before it was resized; sizes below which cells are dropped go by it. Default: the images' own. */
  originalSizes?: [height: number, width: number][];
  signal?: AbortSignal;
}

type Images = NdArray<Float32Array>;
/** One field's planes in the order of the specification's channels. */
type Planes = Float32Array[];

/** A segmenter of one field; `scale` is the area of an original pixel over that of the image's. */
interface Method {
  segment(planes: Planes, size: [number, number], scale: number): Promise<Instances>;
  probabilities(images: Images, planes: Planes[]): Promise<{ nuclei: Images; cells: Images }>;
  dispose(): void;
}

class Builtin implements Method {
  constructor(private readonly spec: DatasetSpec) {}

  segment(planes: Planes, shape: [number, number]): Promise<Instances> {
    const plane = (name: string): Images => ({
      data: planes[this.spec.channels.findIndex((c) => c.name === name)]!,
      shape,
    });
    const cells = this.spec.cellChannels.length > 0 ? this.spec.cellChannels : [this.spec.nucleusChannel];
    return nativeAsync((a) => a.segmentQuickly(plane(this.spec.nucleusChannel), cells.map(plane)));
  }

  probabilities(): Promise<never> {
    return Promise.reject(
      new CellcamError(
        'ERR_INVALID_ARG',
        "Expected a segmenter of method 'hpa': the built-in one has no probabilities",
      ),
    );
  }

  dispose(): void {}
}

async function loadNetwork(path: string, device: Device): Promise<NativeDpnUnet> {
  // The published files hold whole modules; they are read, not run.
  const weights = await readWeights(path, { wholeModule: true });
  try {
    return native((a) => new a.DpnUnet(toNative(withCounters(weights)), device));
  } catch (error) {
    throw new CellcamError('ERR_WEIGHTS', `Expected weights of a DPN U-Net in ${path} but ${messageOf(error)}`, {
      cause: error,
    });
  }
}

/** Very old files lack the counters of batch norm, which evaluation does not need. */
function withCounters(weights: Weights): Weights {
  const all = { ...weights };
  for (const name of Object.keys(weights)) {
    const counter = name.replace(/\.running_var$/, '.num_batches_tracked');
    all[counter] ??= { dtype: 'int64', shape: [], data: new BigInt64Array(1) };
  }
  return all;
}

class Hpa implements Method {
  private constructor(
    private readonly nuclei: NativeDpnUnet,
    private readonly cells: NativeDpnUnet,
    private readonly o: { precision: Precision; scale: 'fast' | 'full'; compat: LabelCellsOptions['compat'] },
    private readonly spec: DatasetSpec,
  ) {}

  static async create(o: HpaSegmenterOptions, spec: DatasetSpec): Promise<Hpa> {
    const device = requireDevice(o.device ?? 'auto');
    const rest = {
      precision: requirePrecision(o.precision ?? 'fp32'),
      scale: requireOneOf(o.scale ?? 'fast', 'scale', ['fast', 'full'] as const),
      compat: requireOneOf(o.compat ?? 'none', 'compat', ['none', 'original'] as const),
    };
    if (spec.cellChannels.length < 1 || spec.cellChannels.length > 2) {
      throw new CellcamError(
        'ERR_INVALID_ARG',
        `Expected one or two cellChannels in spec for method 'hpa' but it has ${spec.cellChannels.length}`,
      );
    }
    const nuclei = await loadNetwork(requireString(o.nucleiWeights, 'nucleiWeights'), device);
    try {
      return new Hpa(nuclei, await loadNetwork(requireString(o.cellWeights, 'cellWeights'), device), rest, spec);
    } catch (error) {
      nuclei.dispose();
      throw error;
    }
  }

  /** What the two networks see: the nuclei three times; cell stains (a missing one is black) and nuclei. */
  #inputs(planes: Planes): { nuclei: Planes; cells: Planes } {
    const plane = (name: string): Float32Array => planes[this.spec.channels.findIndex((c) => c.name === name)]!;
    const nucleus = plane(this.spec.nucleusChannel);
    const [first, second] = this.spec.cellChannels;
    const other = second === undefined ? new Float32Array(nucleus.length) : plane(second);
    return { nuclei: [nucleus, nucleus, nucleus], cells: [plane(first!), other, nucleus] };
  }

  async probabilities(images: Images, fields: Planes[]): Promise<{ nuclei: Images; cells: Images }> {
    const [, , height, width] = images.shape as [number, number, number, number];
    const inputs = fields.map((planes) => this.#inputs(planes));
    const batch = (all: Planes[]): Images => {
      const data = new Float32Array(all.length * 3 * height * width);
      all.flat().forEach((plane, i) => data.set(plane, i * height * width));
      return { data, shape: [all.length, 3, height, width] };
    };
    const nuclei = await this.#run(this.nuclei, batch(inputs.map((i) => i.nuclei)));
    return { nuclei, cells: await this.#run(this.cells, batch(inputs.map((i) => i.cells))) };
  }

  async segment(planes: Planes, size: [number, number], scale: number): Promise<Instances> {
    if (this.o.scale === 'full') return this.#segmentFull(planes, size, scale);
    const { nuclei, cells } = await this.probabilities({ data: new Float32Array(0), shape: [1, 0, ...size] }, [planes]);
    return labelCells(mapOf(nuclei), mapOf(cells), { scale, compat: this.o.compat });
  }

  async #segmentFull(planes: Planes, size: [number, number], scale: number): Promise<Instances> {
    const inputs = this.#inputs(planes);
    const maps: NdArray<Uint8Array>[] = [];
    for (const [network, stack] of [
      [this.nuclei, inputs.nuclei],
      [this.cells, inputs.cells],
    ] as const) {
      const shrunk = shrinkField(stack, size);
      maps.push(enlargeMaps(await this.#run(network, shrunk.images), shrunk, size));
    }
    return labelCells(maps[0]!, maps[1]!, { scale, compat: this.o.compat });
  }

  #run(network: NativeDpnUnet, images: Images): Promise<Images> {
    return nativeAsync(() => network.probabilities(images, this.o.precision));
  }

  dispose(): void {
    this.nuclei.dispose();
    this.cells.dispose();
  }
}

/** Probabilities (1, 3, h, w) as bytes (h, w, 3) without the background. */
function mapOf({ data, shape }: Images): NdArray<Uint8Array> {
  const [, , h, w] = shape as [number, number, number, number];
  const out = new Uint8Array(h * w * 3);
  for (const c of [1, 2]) for (let i = 0; i < h * w; i++) out[3 * i + c] = toByte(data[c * h * w + i]!);
  return { data: out, shape: [h, w, 3] };
}

/**
 * Finds cells and nuclei in fields.
 * `builtin` needs no weights: threshold and watershed, the quick default for well-stained monolayers. `hpa` runs the networks of
 * HPA-Cell-Segmentation and makes instances of their maps as it does.
 */
export class Segmenter {
  readonly spec: DatasetSpec;
  #method: Method | undefined;

  private constructor(method: Method, spec: DatasetSpec) {
    this.#method = method;
    this.spec = spec;
  }

  /** @throws CellcamError ERR_INVALID_ARG; ERR_FILE_NOT_FOUND or ERR_WEIGHTS that names the file */
  static async create(o: SegmenterOptions): Promise<Segmenter> {
    if (typeof o !== 'object' || o === null) throw invalidArgument('an object with a method', 'options', o);
    const spec = datasetSpec(o.spec ?? HPA);
    requireOneOf(o.method, 'method', ['builtin', 'hpa'] as const);
    return new Segmenter(o.method === 'hpa' ? await Hpa.create(o, spec) : new Builtin(spec), spec);
  }

  /**
   * Softmax of the networks of method `hpa`: background, border, interior.
   * @param images (B, C, H, W), the specification's channels, values 0…1; H and W multiples of 32, or one less
   * @returns (B, 3, H, W) each
   */
  probabilities(
    images: NdArray<Float32Array>,
  ): Promise<{ nuclei: NdArray<Float32Array>; cells: NdArray<Float32Array> }> {
    return this.#use().probabilities(images, this.#fields(images));
  }

  /**
   * Cells and nuclei of each image, (H, W): 0 is background, cells are numbered from 1, a nucleus has the number of its cell.
   * @param images (B, C, H, W), the specification's channels, values 0…1
   * @throws CellcamError ERR_INVALID_ARG for values outside, ERR_IMAGE for more than 65535 cells
   */
  async segment(images: NdArray<Float32Array>, o: SegmentOptions = {}): Promise<Instances[]> {
    const method = this.#use();
    const signal = requireSignal(o.signal);
    const fields = this.#fields(images);
    const size = images.shape.slice(2) as [number, number];
    const originals = o.originalSizes ?? fields.map(() => size);
    if (originals.length !== fields.length) {
      throw new CellcamError(
        'ERR_INVALID_ARG',
        `Expected ${fields.length} sizes for originalSizes but received ${originals.length}`,
      );
    }
    const found: Instances[] = [];
    for (const [i, planes] of fields.entries()) {
      throwIfAborted(signal);
      found.push(await method.segment(planes, size, (size[1] / originals[i]![1]) ** 2));
    }
    return found;
  }

  #fields(images: NdArray<Float32Array>): Planes[] {
    const channels = this.spec.channels.length;
    requireNdArray(images, 'images', ['Float32Array'], ['B', channels, 'H', 'W']);
    const [batch, , height, width] = images.shape as [number, number, number, number];
    const bad = images.data.findIndex((v) => !(v >= 0 && v <= 1));
    if (bad >= 0) throw invalidArgument('values from 0 to 1', `images.data[${bad}]`, images.data[bad]);
    if (height * width === 0) throw invalidArgument('images of at least one pixel', 'images', images);
    const pixels = height * width;
    return Array.from({ length: batch }, (_, b) =>
      Array.from({ length: channels }, (__, c) =>
        images.data.subarray((b * channels + c) * pixels, (b * channels + c + 1) * pixels),
      ),
    );
  }

  #use(): Method {
    if (this.#method) return this.#method;
    throw new CellcamError('ERR_DISPOSED', 'the segmenter was disposed');
  }

  dispose(): void {
    this.#method?.dispose();
    this.#method = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
