import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { CellcamError, codeOf, messageOf } from './errors';

/** The package's folder: above dist/. */
const ROOT = path.dirname(__dirname);
const ADDON = path.join(ROOT, 'build', 'Release', 'cellcam.node');
const RECORD = path.join(ROOT, 'build', 'cellcam-build.json');

/** What `npm install` or `npm run build:native` wrote down: what the addon was built from, or why there is none. */
export interface BuildInfo {
  /** ISO 8601 time. */
  when: string;
  libtorch?: {
    /** The folder with LibTorch's include/ and lib/. */
    dir: string;
    version: string;
    /** `cpu`, or the CUDA variant such as `cu130`. */
    variant: string;
    /** Where it was found, such as `LIBTORCH`, `cache` or `wheel (cpu)`. */
    source: string;
  };
  builder?: 'cmake-js' | 'node-gyp';
  /** Platform and architecture, such as `linux-x64`. */
  platform?: string;
  /** sha256 over the addon's sources. */
  sources?: string;
  /** Each place where LibTorch was looked for, in order, and what came of it. */
  attempts?: { source: string; outcome: string }[];
  /** Why there is no addon. */
  error?: string;
}

let loaded: { addon: unknown } | undefined;

/** What the addon was built from, or why it was not; undefined if no build was ever tried. */
export function buildInfo(): BuildInfo | undefined {
  try {
    return JSON.parse(readFileSync(RECORD, 'utf8')) as BuildInfo;
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined;
    return { when: 'unknown', error: `${RECORD} cannot be read: ${messageOf(error)}` };
  }
}

function buildCommand(): string {
  return ROOT.split(path.sep).includes('node_modules') ? 'npm rebuild cellcam' : 'npm run build:native';
}

function history(build: BuildInfo | undefined): string[] {
  if (!build)
    return ["No build was ever tried: cellcam's install script did not run (npm's --ignore-scripts or allow-scripts)."];
  const dir = build.libtorch?.dir;
  const lines = dir && !existsSync(dir) ? [`It was built against LibTorch in ${dir}, which is no longer there.`] : [];
  if (build.error) lines.push(`Its build at ${build.when} ended with: ${build.error}`);
  const tried = build.error ? (build.attempts ?? []) : [];
  if (tried.length > 0) lines.push('LibTorch was looked for in:');
  return [...lines, ...tried.map(({ source, outcome }) => `  ${source}: ${outcome}`)];
}

function missing(reason: string, cause?: unknown): CellcamError {
  const lines = [
    `cellcam's native addon cannot be used: ${reason}`,
    ...history(buildInfo()),
    `To build it run: ${buildCommand()} (LIBTORCH=<folder> builds against a LibTorch of yours; CELLCAM_TORCH=cpu fetches the smallest).`,
    "What is needed and tried is in cellcam's docs/install.md; `npx cellcam doctor` shows what is there.",
  ];
  return new CellcamError('ERR_NATIVE_MISSING', lines.join('\n'), { cause });
}

/** Windows looks for the DLLs that an addon needs in PATH only. */
function showDlls(): void {
  const dir = process.platform === 'win32' ? buildInfo()?.libtorch?.dir : undefined;
  if (dir) process.env['PATH'] = `${path.join(dir, 'lib')}${path.delimiter}${process.env['PATH'] ?? ''}`;
}

/**
 * The addon's exports, loaded at the first call; lib/native.ts types them.
 * Throws ERR_NATIVE_MISSING, saying what was tried and what to do, if the addon is not there or cannot be loaded.
 */
export function loadNativeLibrary(): unknown {
  if (loaded) return loaded.addon;
  if (!existsSync(ADDON)) throw missing(`there is no ${ADDON}`);
  showDlls();
  try {
    loaded = { addon: createRequire(__filename)(ADDON) as unknown };
  } catch (error) {
    throw missing(messageOf(error), error);
  }
  return loaded.addon;
}
