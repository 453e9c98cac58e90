import type { FileHandle } from 'node:fs/promises';
import { Readable } from 'node:stream';
import { fromRandomAccessReader, RandomAccessReader, type Entry, type ZipFile } from 'yauzl';
import { CellcamError, messageOf } from '../../errors';

/** Entries of a torch.save zip by name without the leading folder: where their bytes begin in the file, and how many there are. */
export type ZipEntries = Map<string, { start: number; bytes: number }>;

const STORED = 0;
const MAX_ENTRIES = 2_000_000;

type Refuse = (path: string, rule: string) => never;

/**
 * Reads for yauzl, which follows a damaged file's offsets wherever they lead and would throw where nobody can catch it: here
 * every place is checked first, and what its callbacks throw goes to `failed`.
 */
class GuardedReader extends RandomAccessReader {
  readonly failed: Promise<never>;
  #fail: (error: unknown) => void = () => undefined;

  constructor(
    private readonly file: FileHandle,
    private readonly size: number,
  ) {
    super();
    this.failed = new Promise((_, reject) => (this.#fail = reject));
    this.failed.catch(() => undefined); // who waits for it sees it
  }

  override read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
    callback: (error: Error | null, bytesRead: number) => void,
  ): void {
    const inside = Number.isSafeInteger(position) && position >= 0 && position + length <= this.size;
    const reading = inside
      ? this.file.read(buffer, offset, length, position)
      : Promise.reject(new Error('it refers to a place outside of itself'));
    reading
      .then(
        ({ bytesRead }) => callback(null, bytesRead),
        (error: Error) => callback(error, 0),
      )
      .catch(this.#fail);
  }

  override _readStreamForRange(): Readable {
    return Readable.from([]); // entries are read straight from the file
  }

  override close(callback: (error: Error | null) => void): void {
    callback(null); // the file is its opener's
  }
}

function openAt(reader: GuardedReader, size: number): Promise<ZipFile> {
  return new Promise((resolve, reject) => {
    fromRandomAccessReader(reader, size, { lazyEntries: true, autoClose: false }, (error, zip) => {
      if (error) reject(error);
      else resolve(zip);
    });
  });
}

function entriesOf(zip: ZipFile): Promise<Entry[]> {
  return new Promise((resolve, reject) => {
    const entries: Entry[] = [];
    zip.on('error', reject);
    zip.on('end', () => resolve(entries));
    zip.on('entry', (entry: Entry) => {
      entries.push(entry);
      if (entries.length > MAX_ENTRIES) reject(new Error('it has too many entries'));
      else zip.readEntry();
    });
    zip.readEntry();
  });
}

function startOf(zip: ZipFile, entry: Entry): Promise<number> {
  return new Promise((resolve, reject) => {
    zip.readLocalFileHeader(entry, { minimal: true }, (error, header) => {
      if (error) reject(error);
      else resolve(header.fileDataStart);
    });
  });
}

async function placeEntries(zip: ZipFile, size: number, path: string, refuse: Refuse): Promise<ZipEntries> {
  const places: ZipEntries = new Map();
  for (const entry of await entriesOf(zip)) {
    const name = entry.fileName.slice(entry.fileName.indexOf('/') + 1);
    if (entry.compressionMethod !== STORED || entry.isEncrypted())
      refuse(path, `its entry ${entry.fileName} is compressed or encrypted`);
    if (entry.compressedSize !== entry.uncompressedSize) refuse(path, `its entry ${entry.fileName} has two sizes`);
    if (places.has(name)) refuse(path, `its entry ${entry.fileName} is there twice`);
    const start = await startOf(zip, entry);
    if (!(start + entry.uncompressedSize <= size)) refuse(path, `its entry ${entry.fileName} reaches outside the file`);
    places.set(name, { start, bytes: entry.uncompressedSize });
  }
  return places;
}

/** Finds all entries of a zip file. A file that is no zip, or a damaged one, is refused. */
export async function readZipEntries(file: FileHandle, path: string, refuse: Refuse): Promise<ZipEntries> {
  const { size } = await file.stat();
  const reader = new GuardedReader(file, size);
  const read = async (): Promise<ZipEntries> => placeEntries(await openAt(reader, size), size, path, refuse);
  try {
    return await Promise.race([read(), reader.failed]);
  } catch (error) {
    if (error instanceof CellcamError) throw error;
    return refuse(path, `it is no whole zip file: ${messageOf(error)}`);
  }
}
