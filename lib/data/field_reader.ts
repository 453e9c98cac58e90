import { Hdf5Reader } from './hdf5';
import type { ImageIndex } from './loader';
import { PixelFiles } from './pixel_files';
import { readResizedField } from './resize';

/** Reads any image of an index as (size, size, channels) uint8. Opens files as they are needed. Belongs to one thread. */
export class FieldReader {
  readonly #index: ImageIndex;
  readonly #pixels: PixelFiles;
  readonly #files = new Map<string, Promise<Hdf5Reader>>();

  constructor(index: ImageIndex) {
    this.#index = index;
    this.#pixels = new PixelFiles(index.stored);
  }

  /**
   * @param row place in the index; @param out size·size·channels values
   * @throws CellcamError that names the image and its file
   */
  async readInto(row: number, out: Uint8Array): Promise<void> {
    const { ids, sources, source, size, spec } = this.#index;
    const id = ids[row]!;
    if (this.#pixels.has(row)) return this.#pixels.readInto(row, id, out);
    const from = sources[source[row]!]!;
    if (from.kind === 'hdf5') return (await this.#file(from.path)).readInto(id, out);
    out.set((await readResizedField(from.folder, id, spec, size, 'uint8')).pixels);
  }

  /** Opened once, also where several ask for it before it is. */
  #file(path: string): Promise<Hdf5Reader> {
    let file = this.#files.get(path);
    if (file === undefined) this.#files.set(path, (file = Hdf5Reader.open(path)));
    return file;
  }

  close(): void {
    this.#pixels.close();
    for (const file of this.#files.values()) {
      void file.then(
        (opened) => opened.close(),
        () => undefined, // whoever asked for it has heard why it could not be opened
      );
    }
    this.#files.clear();
  }
}
