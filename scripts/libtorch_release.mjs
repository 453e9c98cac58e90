// Which LibTorch release fits this machine, and where it is published.
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import path from 'node:path';

/** The release that is fetched where none is found. */
export const VERSION = '2.13.0';
const VARIANTS = ['cpu', 'cu126', 'cu128', 'cu130'];
const OFFICIAL = 'https://download.pytorch.org';

/** The oldest NVIDIA driver that runs each CUDA variant, newest first. */
const DRIVERS = [
  [580, 'cu130'],
  [570, 'cu128'],
  [525, 'cu126'],
];

/** sha256 of published files by name; another file is taken on trust of the connection and its own checksums. */
const SHA256 = {
  'torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl':
    '6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b',
};

/** The sha256 that a file must have, if it is known. `CELLCAM_LIBTORCH_SHA256` tells it for a mirrored archive. */
export function expectedSha256(file, env) {
  if (file.endsWith('.zip') && env.CELLCAM_LIBTORCH_SHA256) return env.CELLCAM_LIBTORCH_SHA256.toLowerCase();
  return SHA256[file];
}

function driverText() {
  try {
    const query = ['--query-gpu=driver_version', '--format=csv,noheader'];
    const options = { encoding: 'utf8', timeout: 20000, stdio: ['ignore', 'pipe', 'ignore'] };
    return execFileSync('nvidia-smi', query, options);
  } catch {
    const kernel = '/proc/driver/nvidia/version';
    return existsSync(kernel)
      ? (readFileSync(kernel, 'utf8').match(/NVRM version:.*?(\d{3,}\.\d+)/)?.[1] ?? 'unknown')
      : '';
  }
}

/** The CUDA variant for this machine's NVIDIA driver; undefined without a driver that any of them runs on. */
function cudaVariant(env) {
  if (process.platform === 'darwin') return undefined;
  const major = Number(driverText().match(/^\s*(\d{3,})\./m)?.[1]);
  const nvcuda = path.join(env.SystemRoot ?? 'C:\\Windows', 'System32', 'nvcuda.dll');
  if (Number.isNaN(major)) return process.platform === 'win32' && existsSync(nvcuda) ? 'cu126' : undefined;
  return DRIVERS.find(([oldest]) => major >= oldest)?.[1];
}

/** The variant that `CELLCAM_TORCH` names; undefined where it is not set. Throws on a value that is no variant. */
export function requestedVariant(env) {
  const asked = env.CELLCAM_TORCH;
  if (asked === undefined || asked === '' || VARIANTS.includes(asked)) return asked || undefined;
  throw new Error(`Expected one of ${VARIANTS.join(', ')} for CELLCAM_TORCH but received '${asked}'`);
}

/** Variants to fetch, best first. */
export function wantedVariants(env) {
  const asked = requestedVariant(env);
  if (asked) return [asked];
  const cuda = cudaVariant(env);
  return cuda ? [cuda, 'cpu'] : ['cpu'];
}

/** The official archive of a variant for this platform, as { url, file }; undefined where none is published. */
export function archiveOf(variant, env) {
  const names = {
    'linux-x64': `libtorch-shared-with-deps-${VERSION}+${variant}.zip`,
    'win32-x64': `libtorch-win-shared-with-deps-${VERSION}+${variant}.zip`,
    'darwin-arm64': variant === 'cpu' ? `libtorch-macos-arm64-${VERSION}.zip` : undefined,
  };
  const file = names[`${process.platform}-${process.arch}`];
  if (!file) return undefined;
  const base = (env.CELLCAM_LIBTORCH_URL || `${OFFICIAL}/libtorch`).replace(/\/+$/, '');
  return { file, url: `${base}/${variant}/${file.replace('+', '%2B')}` };
}

/** What pip is asked for, as its arguments after `pip download`. */
export function wheelArguments(variant) {
  const mac = process.platform === 'darwin';
  const index = mac ? [] : ['--extra-index-url', `${OFFICIAL}/whl/${variant}`];
  // A CUDA wheel loads only beside NVIDIA's wheels, which are its dependencies.
  const alone = variant === 'cpu' ? ['--no-deps'] : [];
  return [...alone, ...index, mac ? `torch==${VERSION}` : `torch==${VERSION}+${variant}`];
}
