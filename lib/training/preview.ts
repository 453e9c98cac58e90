import { statSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { type DatasetSpec, datasetSpec, HPA } from '../data/dataset_spec';
import { folderIds } from '../data/dump_plan';
import { Hdf5Reader } from '../data/hdf5';
import { readResizedField } from '../data/resize';
import { CellcamError, messageOf } from '../errors';
import { invalidArgument, type NdArray, requireDevice, requireInteger, requireString, type Device } from '../options';
import { type SheetTile, writeContactSheet } from '../report/contact_sheet';
import { type AugmentationOptions, type AugmentationStep, augmentWith, sampleAugmentation } from './augmentation';

/** What `previewAugmentation` takes. */
export interface PreviewOptions {
  /** An HDF5 file of fields, or a folder of their channels' files. */
  source: string;
  /** The PNG to write. */
  output: string;
  /** Which fields; default the first `images` of the source. */
  ids?: readonly string[];
  /** Default 4. */
  images?: number;
  /** Augmented crops an image; default 4. */
  draws?: number;
  /** 0 to 2^53 - 1; default 0. */
  seed?: number;
  /** Side to which the fields of a folder are resized; default 512. */
  imageSize?: number;
  /** Side of the crops; default 384, at most the image. */
  cropSize?: number;
  /** As in training, without mixing. */
  augmentation?: Omit<AugmentationOptions, 'mixup' | 'cutmix' | 'mixAlpha'>;
  spec?: DatasetSpec;
  device?: Device;
}

/** What a preview shows, row by row as in the picture. */
export interface Preview {
  path: string;
  images: { id: string; draws: AugmentationStep[][] }[];
}

type Field = NdArray<Uint8Array>;

interface Source {
  ids: string[];
  read(id: string): Promise<Field>;
  close(): void;
}

async function folderSource(folder: string, size: number, spec: DatasetSpec): Promise<Source> {
  const read = async (id: string): Promise<Field> => ({
    data: (await readResizedField(folder, id, spec, size, 'uint8')).pixels as Uint8Array,
    shape: [size, size, spec.channels.length],
  });
  return { ids: await folderIds(folder, spec), read, close: () => undefined };
}

async function hdf5Source(path: string, spec: DatasetSpec): Promise<Source> {
  const reader = await Hdf5Reader.open(path);
  const read = (id: string): Promise<Field> => {
    const { shape } = reader.info(id);
    if (shape[2] !== spec.channels.length)
      throw new CellcamError(
        'ERR_HDF5',
        `Expected image '${id}' of ${path} with ${spec.channels.length} channels but it has ${shape[2]}`,
      );
    const data = new Uint8Array(shape[0] * shape[1] * shape[2]);
    reader.readInto(id, data);
    return Promise.resolve({ data, shape });
  };
  return { ids: reader.ids(), read, close: () => reader.close() };
}

function isFolder(path: string): boolean {
  try {
    return statSync(path).isDirectory();
  } catch (error) {
    throw new CellcamError(
      'ERR_FILE_NOT_FOUND',
      `Expected an HDF5 file or a folder of images in ${path}: ${messageOf(error)}`,
      { cause: error },
    );
  }
}

function shown(value: unknown): string {
  if (typeof value === 'number') return String(Number(value.toPrecision(3)));
  if (!Array.isArray(value)) return String(value);
  return value.length > 2 || value.some(Array.isArray) ? '…' : `(${value.map(shown).join(', ')})`;
}

/** A step in one line, such as `GaussNoise var 12.4`; what only the computer needs is left out. */
function stepLine({ op, params }: AugmentationStep): string {
  const told = Object.entries(params).filter(([name]) => !['seed', 'h_start', 'w_start'].includes(name));
  return [op, ...told.map(([name, value]) => `${name} ${shown(value)}`)].join(' ');
}

async function rowOf(id: string, image: Field, draws: AugmentationStep[][], device: Device): Promise<SheetTile[]> {
  const row: SheetTile[] = [{ image, title: id, lines: [`${image.shape[0]} × ${image.shape[1]}`] }];
  for (const [i, steps] of draws.entries()) {
    const { data, shape } = await augmentWith({ data: image.data, shape: [1, ...image.shape] }, steps, { device });
    row.push({
      image: { data, shape: shape.slice(1) },
      like: image,
      title: `draw ${i + 1}`,
      lines: steps.map(stepLine),
    });
  }
  return row;
}

function chosenIds({ ids }: Source, o: PreviewOptions): readonly string[] {
  if (o.ids === undefined) return ids.slice(0, requireInteger(o.images ?? 4, 'images', 1, 100));
  if (!Array.isArray(o.ids) || o.ids.length === 0) throw invalidArgument('an array of ids', 'ids', o.ids);
  return o.ids.map((id, i) => requireString(id, `ids[${i}]`));
}

/**
 * Draws a contact sheet: each field as it is stored, then crops of it as training would see them, with their operations. Every tile of a
 * field has the brightness of the field, so that changes of tone show.
 * @throws CellcamError ERR_INVALID_ARG, ERR_FILE_NOT_FOUND, ERR_HDF5, ERR_IMAGE, ERR_WRITE
 */
export async function previewAugmentation(o: PreviewOptions): Promise<Preview> {
  if (typeof o !== 'object' || o === null) throw invalidArgument('an object', 'options', o);
  const spec = datasetSpec(o.spec ?? HPA);
  const path = resolve(requireString(o.output, 'output'));
  const draws = requireInteger(o.draws ?? 4, 'draws', 1, 20);
  const seed = requireInteger(o.seed ?? 0, 'seed', 0);
  const device = requireDevice(o.device ?? 'auto');
  const size = requireInteger(o.imageSize ?? 512, 'imageSize', 32, 16384);
  const from = requireString(o.source, 'source');
  const source = isFolder(from) ? await folderSource(from, size, spec) : await hdf5Source(from, spec);
  const preview: Preview = { path, images: [] };
  const rows: SheetTile[][] = [];
  try {
    for (const id of chosenIds(source, o)) {
      const image = await source.read(id);
      const [height, width, channels] = image.shape as [number, number, number];
      const crop = requireInteger(o.cropSize ?? Math.min(384, height, width), 'cropSize', 32, Math.min(height, width));
      const drawn = Array.from({ length: draws }, (_, i) =>
        sampleAugmentation(BigInt(seed) * 0x10000n + BigInt(rows.length * draws + i), {
          ...o.augmentation,
          size: [height, width],
          crop,
          channels,
        }),
      );
      rows.push(await rowOf(id, image, drawn, device));
      preview.images.push({ id, draws: drawn });
    }
  } finally {
    source.close();
  }
  await mkdir(dirname(path), { recursive: true });
  await writeContactSheet(path, rows, spec);
  return preview;
}
