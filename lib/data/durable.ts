import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { CellcamError, messageOf } from '../errors';

/** Where a file is written before it gets its name; what a killed process leaves behind ends so and can be removed. */
export function temporaryName(path: string): string {
  return `${path}.tmp`;
}

/** A failed write, told in one line. */
export function writeError(path: string, error: unknown): CellcamError {
  return new CellcamError('ERR_WRITE', `could not write ${path}: ${messageOf(error)}`, { cause: error });
}

/** Of a call to the operating system, as a full disk gives it. */
function isSystemError(error: unknown): boolean {
  return typeof error === 'object' && error !== null && 'syscall' in error;
}

async function sync(path: string, flags: string): Promise<void> {
  const handle = await open(path, flags);
  await handle.sync().finally(() => handle.close());
}

/**
 * Gives a file that a library wrote under its temporary name its own name, so that whoever sees the name sees the whole
 * file, even after a power cut: contents are on disk before the rename, and the rename before this settles.
 * @throws CellcamError ERR_WRITE; the temporary file is then removed
 */
export async function publish(path: string): Promise<void> {
  const temporary = temporaryName(path);
  try {
    await sync(temporary, 'r+');
    await rename(temporary, path);
    // Windows cannot open folders, and needs no such sync.
    if (process.platform !== 'win32') await sync(dirname(path), 'r');
  } catch (error) {
    await rm(temporary, { force: true });
    throw writeError(path, error);
  }
}

/**
 * Fills a file through its handle: it appears finished under its name, or not at all.
 * @throws CellcamError ERR_WRITE, or what `fill` throws
 */
export async function fillDurably(path: string, fill: (file: FileHandle) => Promise<void>): Promise<void> {
  const temporary = temporaryName(path);
  try {
    const handle = await open(temporary, 'w');
    try {
      await fill(handle);
    } finally {
      await handle.close();
    }
  } catch (error) {
    await rm(temporary, { force: true });
    throw isSystemError(error) ? writeError(path, error) : error; // what `fill` met elsewhere stays as it is
  }
  await publish(path);
}

/** `fillDurably` with contents at hand. */
export function writeDurably(path: string, contents: string | Uint8Array): Promise<void> {
  return fillDurably(path, (file) => file.writeFile(contents));
}
