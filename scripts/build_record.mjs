// build/cellcam-build.json: what the addon was built from, or why there is none. lib/native_library.ts reads it at run time.
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { ROOT } from './libtorch.mjs';

const RECORD = path.join(ROOT, 'build', 'cellcam-build.json');
export const ADDON = path.join(ROOT, 'build', 'Release', 'cellcam.node');

/** Every file that the addon depends on, sorted, relative to the package. */
function inputs() {
  const native = readdirSync(path.join(ROOT, 'native'), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(ROOT, path.join(entry.parentPath ?? entry.path, entry.name)).replaceAll('\\', '/'))
    .filter((file) => !file.startsWith('native/tests/'));
  return [...native, 'CMakeLists.txt', 'binding.gyp'].filter((file) => existsSync(path.join(ROOT, file))).sort();
}

/** One hash over the names and contents of the addon's sources. */
export function sourcesHash() {
  const hash = createHash('sha256');
  for (const file of inputs()) {
    const content = readFileSync(path.join(ROOT, file));
    hash.update(`${file}\n${content.length}\n`).update(content);
  }
  return hash.digest('hex');
}

export function readRecord() {
  try {
    return JSON.parse(readFileSync(RECORD, 'utf8'));
  } catch {
    return undefined;
  }
}

export function writeRecord(record) {
  mkdirSync(path.dirname(RECORD), { recursive: true });
  const partial = `${RECORD}.${process.pid}`;
  writeFileSync(partial, `${JSON.stringify({ ...record, when: new Date().toISOString() }, null, 2)}\n`);
  renameSync(partial, RECORD);
}

/** Whether the addon that is there was built from this LibTorch and these sources. */
export function isUpToDate(libtorch) {
  const built = readRecord();
  if (!existsSync(ADDON) || built?.platform !== `${process.platform}-${process.arch}`) return false;
  const same = built.libtorch?.dir === libtorch.dir && built.libtorch.version === libtorch.version;
  return same && built.sources === sourcesHash();
}
