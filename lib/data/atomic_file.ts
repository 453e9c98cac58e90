import { open, rename, rm, type FileHandle } from 'node:fs/promises';
import { dirname, basename, join } from 'node:path';
import { CellcamError, messageOf } from '../errors';

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  await handle.sync().finally(() => handle.close());
}

async function fill(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const file = await open(path, 'w');
  try {
    await write(file);
    await file.sync();
  } finally {
    await file.close();
  }
}

/**
 * Writes a file so that it is either whole or absent, also after a crash: to a temporary name beside it, synced, renamed.
 * @throws CellcamError ERR_WRITE; nothing is left behind, and an older file of that name stays as it was
 */
export async function writeAtomically(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
  try {
    await fill(temporary, write);
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true });
    if (error instanceof CellcamError) throw error;
    throw new CellcamError('ERR_WRITE', `could not write ${path}: ${messageOf(error)}`, { cause: error });
  }
}

/** `writeAtomically` for a text or bytes at hand. */
export function writeFileAtomically(path: string, content: string | Uint8Array): Promise<void> {
  return writeAtomically(path, (file) => file.writeFile(content));
}
