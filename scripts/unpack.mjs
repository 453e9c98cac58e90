// Unpacks what the addon needs of a LibTorch archive or a PyTorch wheel.
import { createWriteStream, mkdirSync } from 'node:fs';
import path from 'node:path';
import { pipeline } from 'node:stream/promises';
import { crc32 } from 'node:zlib';
import yauzl from 'yauzl';

// Python's side of PyTorch, libraries of its tests and static libraries: a fifth of the size and never linked.
const UNUSED =
  /^(lib)?(torch_python|shm|torch_global_deps|backend_with_compiler|jitbackend_test|torchbind_test|aoti_custom_ops)/;

/**
 * Where an entry goes below the destination; undefined to leave it out. Archives hold libtorch/, wheels torch/ and,
 * beside it, the libraries that it finds by relative run paths (torch.libs/, nvidia/).
 */
function targetOf(entry) {
  const parts = entry.split('/');
  if (entry.endsWith('/')) return undefined;
  if (parts[0] === 'nvidia') return /\/(lib|include)\//.test(entry) ? entry : undefined;
  if (parts[0] === 'torch.libs') return entry;
  if (parts[0] !== 'torch' && parts[0] !== 'libtorch') return undefined;
  const rest = parts.slice(1);
  if (rest.length === 1) return ['build-version', 'version.py'].includes(rest[0]) ? `torch/${rest[0]}` : undefined;
  if (!['include', 'lib', 'share'].includes(rest[0])) return undefined;
  const unused = rest[0] === 'lib' && (UNUSED.test(rest[1]) || rest[1].endsWith('.a'));
  return unused ? undefined : ['torch', ...rest].join('/');
}

async function writeEntry(zip, entry, file) {
  mkdirSync(path.dirname(file), { recursive: true });
  const stream = await zip.openReadStreamPromise(entry);
  let sum = 0;
  const summed = async function* (source) {
    for await (const chunk of source) {
      sum = crc32(chunk, sum);
      yield chunk;
    }
  };
  await pipeline(stream, summed, createWriteStream(file));
  if (sum !== entry.crc32) throw new Error(`checksum of ${entry.fileName} does not match`);
}

async function unpackEntries(archive, folder) {
  const zip = await yauzl.openPromise(archive, { lazyEntries: true, autoClose: false });
  try {
    for await (const entry of zip.eachEntry()) {
      const target = targetOf(entry.fileName);
      if (target !== undefined) await writeEntry(zip, entry, path.join(folder, target));
    }
  } finally {
    zip.close();
  }
}

/** Unpacks `archive` (a zip or wheel) below `folder`. Throws on any damage; yauzl refuses names that point elsewhere. */
export async function unpack(archive, folder) {
  try {
    await unpackEntries(archive, folder);
  } catch (error) {
    throw new Error(`${path.basename(archive)} cannot be unpacked: ${error.message}`, { cause: error });
  }
}
