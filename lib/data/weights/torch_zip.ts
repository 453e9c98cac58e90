import { open as openZip, type Entry, type ZipFile } from 'yauzl';
import { messageOf } from '../../errors';

/** Entries of a torch.save zip by name without the leading folder: where their bytes begin in the file, and how many there are. */
export type ZipEntries = Map<string, { start: number; bytes: number }>;

const STORED = 0;
const MAX_ENTRIES = 2_000_000;

type Refuse = (path: string, rule: string) => never;

function openAt(path: string): Promise<ZipFile> {
  return new Promise((resolve, reject) => {
    // Sizes are checked here; the entries are read straight from the file.
    openZip(path, { lazyEntries: true, autoClose: false, validateEntrySizes: true }, (error, zip) => {
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

async function placeEntries(zip: ZipFile, path: string, refuse: Refuse): Promise<ZipEntries> {
  const places: ZipEntries = new Map();
  for (const entry of await entriesOf(zip)) {
    const name = entry.fileName.slice(entry.fileName.indexOf('/') + 1);
    if (entry.compressionMethod !== STORED || entry.isEncrypted())
      refuse(path, `its entry ${entry.fileName} is compressed or encrypted`);
    if (entry.compressedSize !== entry.uncompressedSize) refuse(path, `its entry ${entry.fileName} has two sizes`);
    if (places.has(name)) refuse(path, `its entry ${entry.fileName} is there twice`);
    const start = await startOf(zip, entry);
    if (start + entry.uncompressedSize > zip.fileSize)
      refuse(path, `its entry ${entry.fileName} reaches outside the file`);
    places.set(name, { start, bytes: entry.uncompressedSize });
  }
  return places;
}

/** Finds all entries of a zip file. A file that is no zip, or a damaged one, is refused. */
export async function readZipEntries(path: string, refuse: Refuse): Promise<ZipEntries> {
  let zip: ZipFile;
  try {
    zip = await openAt(path);
  } catch (error) {
    return refuse(path, `it is no whole zip file: ${messageOf(error)}`);
  }
  try {
    return await placeEntries(zip, path, refuse);
  } catch (error) {
    if (error instanceof Error && error.name === 'CellcamError') throw error;
    return refuse(path, `it is a damaged zip file: ${messageOf(error)}`);
  } finally {
    zip.close();
  }
}
