import { CellcamError } from '../errors';
import { nativeAsync } from '../native';
import { readField } from './field';
import { Hdf5Reader } from './hdf5';
import type { ImageIndex, ImageSource } from './loader';

const LISTED = 5;

function list(ids: string[]): string {
  return ids.slice(0, LISTED).join(', ') + (ids.length > LISTED ? `, … (${ids.length} in all)` : '');
}

/** Reads any image of an index as (size, size, channels) uint8. Belongs to one thread. */
export class FieldReader {
  readonly #index: ImageIndex;
  readonly #files: (Hdf5Reader | undefined)[];

  private constructor(index: ImageIndex, files: (Hdf5Reader | undefined)[]) {
    this.#index = index;
    this.#files = files;
  }

  /** @throws CellcamError ERR_FILE_NOT_FOUND, ERR_HDF5 */
  static async open(index: ImageIndex): Promise<FieldReader> {
    const files: (Hdf5Reader | undefined)[] = [];
    for (const source of index.sources)
      files.push(source.kind === 'hdf5' ? await Hdf5Reader.open(source.path) : undefined);
    return new FieldReader(index, files);
  }

  /**
   * Checks that every image of HDF5 files is there with the right shape and type, before any work is done on them.
   * @throws CellcamError ERR_HDF5 that names the first ones that are missing or wrong
   */
  check(table: string): void {
    this.#files.forEach((file, source) => {
      if (file === undefined) return;
      const ids = this.#index.ids.filter((_, row) => this.#index.source[row] === source);
      const missing = ids.filter((id) => !file.has(id));
      if (missing.length > 0) {
        throw new CellcamError(
          'ERR_HDF5',
          `Expected every image of ${table} in ${file.path} but it lacks ${list(missing)}`,
        );
      }
      for (const id of ids) this.#checkShape(file, id);
    });
  }

  #checkShape(file: Hdf5Reader, id: string): void {
    const { size, spec } = this.#index;
    const channels = spec.channels.length;
    const { shape } = file.info(id);
    if (shape[0] === size && shape[1] === size && shape[2] === channels) return;
    throw new CellcamError(
      'ERR_HDF5',
      `Expected image '${id}' of ${file.path} with shape (${size}, ${size}, ${channels}) but it has (${shape.join(', ')}): ` +
        'dump it at that size, or give --image_size',
    );
  }

  /** @param row place in the index; @param out size·size·channels values */
  async readInto(row: number, out: Uint8Array): Promise<void> {
    const id = this.#index.ids[row]!;
    const place = this.#index.source[row]!;
    const source = this.#index.sources[place]!;
    const file = this.#files[place];
    if (file) file.readInto(id, out);
    else out.set(await this.#fromPngs(source, id));
  }

  async #fromPngs(source: ImageSource, id: string): Promise<Uint8Array> {
    if (source.kind !== 'png') throw new CellcamError('ERR_HDF5', `the reader of '${id}' is closed`);
    const { planes } = await readField(source.folder, id, this.#index.spec);
    return nativeAsync((a) => a.resizeField(planes, this.#index.size, 'uint8'));
  }

  close(): void {
    for (const file of this.#files) file?.close();
  }
}
