import { existsSync } from 'node:fs';
import { mkdir, type FileHandle } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { readFieldImage, toUnitImage, type FieldImage } from '../cells/field_image';
import type { Instances } from '../cells/label_cells';
import { resizeLabels, toCoco, toGeoJson } from '../cells/mask_formats';
import { Segmenter, type SegmenterOptions } from '../cells/segmenter';
import { checkFilePattern, datasetSpec, HPA, type DatasetSpec } from '../data/dataset_spec';
import { folderIds } from '../data/dump_plan';
import { fillDurably, writeDurably, writeError } from '../data/durable';
import { readField } from '../data/field';
import { inOrder, refusal } from '../data/in_order';
import { writeGrey16 } from '../data/png';
import { invalidArgument, requireInteger, requireOneOf, requireSignal, requireString } from '../options';
import { writeOutlines } from '../report/outline_picture';

/** png: 16-bit label images `<id>.png`; geojson: `<id>.geojson`, as QuPath opens it; coco: one `cells.coco.json`. */
export const MASK_FORMATS = ['png', 'geojson', 'coco'] as const;
export type MaskFormat = (typeof MASK_FORMATS)[number];

export interface SegmentFieldsOptions {
  /** Folder of the fields' files. */
  imagesFolder: string;
  /** Folder that masks are written to. */
  output: string;
  /** Default: png. */
  formats?: readonly MaskFormat[];
  /** Also `<id>_nuclei.png`, with the numbers of the cells. */
  nuclei?: boolean;
  /** Also `<id>_overlay.png`: the field in colour with outlines and numbers. */
  overlay?: boolean;
  /** Masks of the files' own size instead of the segmented image's. */
  originalSize?: boolean;
  /** How; default: built in, without weights. */
  segmenter?: SegmenterOptions;
  /** Side to which fields are resized before; default 512. Networks of scale `full` see the files' own size. */
  imageSize?: number;
  /** Which fields; default all of the folder. */
  ids?: readonly string[];
  /** Names of the files, such as '{id}_{channel}.tif'. */
  filePattern?: string;
  /** Fields in flight; default: one more than cores, one for networks. */
  workers?: number;
  /** Of the segmenter as well. */
  spec?: DatasetSpec;
  signal?: AbortSignal;
  onProgress?: (p: { done: number; total: number; cells: number; id: string }) => void;
}

export interface SegmentFieldsResult {
  fields: number;
  cells: number;
  /** Fields in which no cell was found. */
  withoutCells: string[];
  /** Fields whose files could not be read. */
  failed: { id: string; reason: string }[];
}

function requireFormats(formats: unknown): MaskFormat[] {
  const list = formats ?? ['png'];
  if (!Array.isArray(list) || list.length === 0) throw invalidArgument(`some of ${MASK_FORMATS.join(', ')}`, 'formats', formats); // prettier-ignore
  return list.map((format) => requireOneOf(format, 'formats', MASK_FORMATS));
}

async function segmentPlan(o: SegmentFieldsOptions) {
  if (typeof o !== 'object' || o === null) throw invalidArgument('an object', 'options', o);
  const given = datasetSpec(o.spec ?? HPA);
  const spec = o.filePattern === undefined ? given : { ...given, filePattern: checkFilePattern(o.filePattern) };
  const how: SegmenterOptions = { ...(o.segmenter ?? { method: 'builtin' }), spec };
  const imagesFolder = requireString(o.imagesFolder, 'imagesFolder');
  return {
    imagesFolder,
    output: resolve(requireString(o.output, 'output')),
    formats: requireFormats(o.formats),
    size: requireInteger(o.imageSize ?? 512, 'imageSize', 32, 16384),
    full: how.method === 'hpa' && how.scale === 'full',
    workers: requireInteger(o.workers ?? (how.method === 'builtin' ? availableParallelism() + 1 : 1), 'workers', 1),
    ids: o.ids === undefined ? await folderIds(imagesFolder, spec) : [...new Set(o.ids)],
    signal: requireSignal(o.signal),
    spec,
    how,
  };
}

type Plan = Awaited<ReturnType<typeof segmentPlan>>;

interface Segmented extends Instances {
  pixels: Uint8Array;
  shape: [height: number, width: number];
  original: [height: number, width: number];
}

/** A field as its files have it, (H, W, C) uint8, brought to bytes as a dump does; not resized. */
async function wholeField(plan: Plan, id: string): Promise<Pick<FieldImage, 'pixels' | 'original'>> {
  const { planes, height, width } = await readField(plan.imagesFolder, id, plan.spec);
  const top = planes.some(({ data }) => data.some((v: number) => v > 255)) ? 65535 : 255;
  const pixels = new Uint8Array(height * width * planes.length);
  planes.forEach(({ data }, c) => {
    for (let i = 0; i < data.length; i++) {
      pixels[i * planes.length + c] = Math.floor(Math.fround(255 * Math.fround(data[i]! / top)));
    }
  });
  return { pixels, original: [height, width] };
}

async function segmentOne(plan: Plan, segmenter: Segmenter, id: string): Promise<Segmented> {
  const channels = plan.spec.channels.length;
  const field = plan.full
    ? await wholeField(plan, id)
    : await readFieldImage(plan.imagesFolder, id, plan.size, plan.spec);
  const shape = plan.full ? field.original : ([plan.size, plan.size] as [number, number]);
  const images = toUnitImage(field.pixels, shape, channels);
  const [found] = await segmenter.segment(images, { originalSizes: [field.original] });
  return { ...found!, pixels: field.pixels, shape, original: field.original };
}

/** One COCO file for all fields, written as they come. */
class CocoFile {
  readonly #images: object[] = [];
  #annotations = 0;

  constructor(private readonly file: FileHandle) {}

  begin(): Promise<unknown> {
    return this.file.write('{"annotations":[');
  }

  async add(id: string, cells: Instances['cells']): Promise<void> {
    const [height, width] = cells.shape;
    const imageId = this.#images.length + 1;
    this.#images.push({ id: imageId, file_name: id, height, width });
    for (const annotation of toCoco(cells, imageId, this.#annotations + 1)) {
      await this.file.write(`${this.#annotations++ > 0 ? ',' : ''}\n${JSON.stringify(annotation)}`);
    }
  }

  end(): Promise<unknown> {
    const rest = { images: this.#images, categories: [{ id: 1, name: 'cell' }] };
    return this.file.write(`\n],${JSON.stringify(rest).slice(1)}\n`);
  }
}

async function writeMasks(
  plan: Plan,
  o: SegmentFieldsOptions,
  id: string,
  found: Segmented,
): Promise<Instances['cells']> {
  const size = o.originalSize ? found.original : found.shape;
  const cells = resizeLabels(found.cells, size);
  const at = (name: string): string => join(plan.output, `${id}${name}`);
  if (plan.formats.includes('png')) await writeGrey16(at('.png'), cells.data, size);
  if (plan.formats.includes('geojson')) await writeDurably(at('.geojson'), toGeoJson(id, found, found.original));
  if (o.nuclei) await writeGrey16(at('_nuclei.png'), resizeLabels(found.nuclei, size).data, size);
  if (o.overlay) await writeOutlines(at('_overlay.png'), found.pixels, found.shape, found, plan.spec);
  return cells;
}

async function segmentAll(plan: Plan, o: SegmentFieldsOptions, coco?: CocoFile): Promise<SegmentFieldsResult> {
  const result: SegmentFieldsResult = { fields: 0, cells: 0, withoutCells: [], failed: [] };
  using segmenter = await Segmenter.create(plan.how);
  const work = (id: string): Promise<Segmented> => segmentOne(plan, segmenter, id);
  for await (const outcome of inOrder(plan.ids, plan.workers, work, plan.signal)) {
    const id = outcome.item;
    if ('error' in outcome) {
      result.failed.push({ id, reason: refusal(outcome.error) });
    } else {
      const cells = await writeMasks(plan, o, id, outcome.value);
      await coco?.add(id, cells);
      const count = outcome.value.cells.data.reduce((most, v) => Math.max(most, v), 0);
      result.cells += count;
      result.fields++;
      if (count === 0) result.withoutCells.push(id);
    }
    o.onProgress?.({ done: result.fields + result.failed.length, total: plan.ids.length, cells: result.cells, id });
  }
  return result;
}

/**
 * Finds the cells of a folder of fields and writes them as masks. A field whose files are missing or damaged is listed, and the others
 * go on. Each file appears whole or not at all; existing ones are replaced.
 * @throws CellcamError ERR_INVALID_ARG, ERR_FILE_NOT_FOUND (no images), ERR_WRITE, what Segmenter.create throws
 */
export async function segmentFields(o: SegmentFieldsOptions): Promise<SegmentFieldsResult> {
  const plan = await segmentPlan(o);
  if (!existsSync(plan.output)) {
    await mkdir(plan.output, { recursive: true }).catch((error: unknown) => {
      throw writeError(plan.output, error);
    });
  }
  if (!plan.formats.includes('coco')) return segmentAll(plan, o);
  let result: SegmentFieldsResult | undefined;
  await fillDurably(join(plan.output, 'cells.coco.json'), async (file) => {
    const coco = new CocoFile(file);
    await coco.begin();
    result = await segmentAll(plan, o, coco);
    await coco.end();
  });
  return result!;
}
