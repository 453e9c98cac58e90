import { createHash } from 'node:crypto';
import { createReadStream, existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { findMask, readMask } from '../data/masks';
import { writeLabelMask } from '../data/png';
import { CellcamError, messageOf } from '../errors';
import type { NdArray } from '../options';
import { toUnitImage, type FieldImage } from './field_image';
import { Segmenter, type SegmenterOptions } from './segmenter';

/** Raised when the built-in method finds other cells in the same field than before. */
const BUILTIN_VERSION = 1;

/** Where the cells of fields come from. */
export interface MaskSource {
  /** Fails early for a field that has no mask. */
  check(id: string): void;
  /** Numbered cells (h, w), of any size. @throws CellcamError naming image and file */
  cellsOf(id: string, field: FieldImage): Promise<NdArray<Uint16Array>>;
  /** What to call a field's mask in an error. */
  nameOf(id: string): string;
  [Symbol.dispose](): void;
}

class GivenMasks implements MaskSource {
  constructor(private readonly folder: string) {}

  check(id: string): void {
    findMask(this.folder, id);
  }

  async cellsOf(id: string): Promise<NdArray<Uint16Array>> {
    const path = findMask(this.folder, id);
    try {
      return await readMask(path);
    } catch (error) {
      if (error instanceof CellcamError && error.message.includes(path)) throw error;
      throw new CellcamError('ERR_IMAGE', `image '${id}' with mask ${path}: ${messageOf(error)}`, { cause: error });
    }
  }

  nameOf(id: string): string {
    return `mask ${findMask(this.folder, id)}`;
  }

  [Symbol.dispose](): void {}
}

/** Segments each field once: masks are kept under the hash of the field's pixels and of the method. */
class ComputedMasks implements MaskSource {
  constructor(
    private readonly segmenter: Segmenter,
    private readonly method: string,
    private readonly cache: string,
  ) {}

  check(): void {}

  async cellsOf(id: string, { pixels, size, original }: FieldImage): Promise<NdArray<Uint16Array>> {
    const hash = createHash('sha256').update(`${this.method} ${size} ${original.join()} `).update(pixels).digest('hex');
    const path = join(this.cache, hash.slice(0, 2), `${hash}.png`);
    if (existsSync(path)) return readMask(path);
    const channels = this.segmenter.spec.channels.length;
    let cells: NdArray<Uint16Array>;
    try {
      const image = toUnitImage(pixels, [size, size], channels);
      cells = (await this.segmenter.segment(image, { originalSizes: [original] }))[0]!.cells;
    } catch (error) {
      throw new CellcamError('ERR_IMAGE', `image '${id}' could not be segmented: ${messageOf(error)}`, {
        cause: error,
      });
    }
    mkdirSync(join(this.cache, hash.slice(0, 2)), { recursive: true });
    await writeLabelMask(path, cells);
    return cells;
  }

  nameOf(): string {
    return 'its computed mask';
  }

  [Symbol.dispose](): void {
    this.segmenter.dispose();
  }
}

async function fileHash(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/**
 * @param masks a folder of masks; without it fields are segmented
 * @param o.cache where computed masks are kept
 */
export async function maskSource(
  masks: string | undefined,
  o: { segmenter: SegmenterOptions; cache: string },
): Promise<MaskSource> {
  if (masks !== undefined) return new GivenMasks(masks);
  const segmenter = await Segmenter.create(o.segmenter);
  const { spec } = segmenter;
  const stains = `${spec.nucleusChannel} ${spec.cellChannels.join(' ')} of ${spec.channels.map((c) => c.name).join(' ')}`;
  const how =
    o.segmenter.method === 'builtin'
      ? `builtin ${BUILTIN_VERSION}`
      : `hpa ${o.segmenter.precision ?? 'fp32'} ${o.segmenter.scale ?? 'fast'} ${o.segmenter.compat ?? 'none'} ` +
        `${await fileHash(o.segmenter.nucleiWeights)} ${await fileHash(o.segmenter.cellWeights)}`;
  return new ComputedMasks(segmenter, `${how} ${stains}`, o.cache);
}
