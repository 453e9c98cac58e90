// Recognises a LibTorch folder: the one with include/ and lib/ of an official archive or of a PyTorch installation.
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import path from 'node:path';

/** Versions the addon is built and tested against, as [major, minor]. */
const OLDEST = [2, 11];
const NEWEST = [2, 14];

const VERSION_HEADERS = ['include/torch/headeronly/version.h', 'include/torch/csrc/api/include/torch/version.h'];

function readText(file) {
  return existsSync(file) ? readFileSync(file, 'utf8') : '';
}

/** The release a folder's headers name, such as '2.13.0'; undefined where they name none. */
function headerVersion(dir) {
  const text = VERSION_HEADERS.map((header) => readText(path.join(dir, header))).join('\n');
  const parts = ['MAJOR', 'MINOR', 'PATCH'].map((part) => text.match(`#define TORCH_VERSION_${part} (\\d+)`)?.[1]);
  return parts.includes(undefined) ? undefined : parts.join('.');
}

/** 'cpu' or 'cu130' and the like: from what the builders wrote down, else from the libraries that are there. */
function folderVariant(dir, libraries) {
  const label = `${readText(path.join(dir, 'build-version'))}\n${readText(path.join(dir, 'version.py'))}`;
  const local = label.match(/\d\.\d+\.\d+\S*\+(cpu|cu\d+)/)?.[1];
  if (local) return local;
  if (!libraries.some((name) => /torch_cuda\./.test(name))) return 'cpu';
  const cuda = label.match(/cuda[^=\n]*= '(\d+)\.(\d+)'/);
  return cuda ? `cu${cuda[1]}${cuda[2]}` : 'cuda';
}

/** What is missing from a folder that should be LibTorch; undefined if it is whole. */
function flaw(dir, libraries) {
  if (!existsSync(dir)) return 'no such folder';
  if (!existsSync(path.join(dir, 'include', 'torch', 'csrc', 'api', 'include', 'torch', 'torch.h'))) {
    return 'no include/torch/csrc/api/include/torch/torch.h in it';
  }
  for (const library of ['torch', 'torch_cpu', 'c10']) {
    const name = new RegExp(`^(lib)?${library}\\.(so|dylib|lib)$`);
    if (!libraries.some((file) => name.test(file))) return `no ${library} library in its lib/`;
  }
  return undefined;
}

/**
 * Looks at `dir`, or at `dir/torch` and `dir/libtorch` inside it.
 * Returns { dir, version, variant }, or { flaw } with what is wrong with `dir`.
 */
export function inspectLibtorch(dir) {
  const candidates = [dir, path.join(dir, 'torch'), path.join(dir, 'libtorch')].map((each) => path.resolve(each));
  const flaws = candidates.map((candidate) => {
    const lib = path.join(candidate, 'lib');
    const libraries = existsSync(lib) ? readdirSync(lib) : [];
    return { candidate, libraries, flaw: flaw(candidate, libraries) };
  });
  const found = flaws.find((each) => each.flaw === undefined);
  if (!found) return { flaw: flaws[0].flaw };
  return {
    dir: found.candidate,
    version: headerVersion(found.candidate) ?? 'unknown',
    variant: folderVariant(found.candidate, found.libraries),
  };
}

/** Whether LibTorch `version` is one that the addon supports. */
export function isSupported(version) {
  const [major, minor] = version.split('.').map(Number);
  const rank = major * 1000 + minor;
  return rank >= OLDEST[0] * 1000 + OLDEST[1] && rank <= NEWEST[0] * 1000 + NEWEST[1];
}

export const SUPPORTED = `${OLDEST.join('.')} to ${NEWEST.join('.')}`;
