import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { messageOf } from '../errors';
import type { NativeDescription } from '../native';
import { buildInfo, loadNativeLibrary, type BuildInfo } from '../native_library';
import { VERSION } from '../version';
import { cpuFeatures, memory } from './machine';

export { formatDoctor } from './doctor_text';

/** The state of an installation, as plain JSON. */
export interface DoctorReport {
  /** Whether cellcam can be used here: `problems` is empty. */
  ok: boolean;
  /** What keeps cellcam from working, each with what to do. */
  problems: string[];
  /** What works, but could be better. */
  notes: string[];
  cellcam: string;
  node: string;
  /** Platform, architecture and the system's release. */
  platform: string;
  cpu: { model: string; cores: number; features: Record<string, boolean> };
  /** Bytes. */
  memory: ReturnType<typeof memory>;
  build?: BuildInfo;
  addon: { loaded: boolean } & Partial<NativeDescription>;
  /** Threads that decode images at once, all of the process together. */
  libuvThreads: number;
  h5wasm?: string;
  sharp?: string;
  /** Where a fetched LibTorch is kept. */
  cache: string;
}

const ROOT = path.resolve(__dirname, '..', '..');
/** The version in a package's package.json, also of packages that do not export that file. */
function packageVersion(name: string): string {
  const folders = createRequire(__filename).resolve.paths(name) ?? [];
  const file = folders.map((folder) => path.join(folder, name, 'package.json')).find((each) => existsSync(each));
  if (file === undefined) throw new Error(`${name} is not installed`);
  return (JSON.parse(readFileSync(file, 'utf8')) as { version: string }).version;
}

async function dependency(name: string, load: () => Promise<unknown>, problems: string[]): Promise<string | undefined> {
  try {
    await load();
    return packageVersion(name);
  } catch (error) {
    problems.push(`${name} cannot be used: ${messageOf(error)}. Run: npm install`);
    return undefined;
  }
}

function addonState(problems: string[]): DoctorReport['addon'] {
  try {
    const addon = loadNativeLibrary() as { describe?: () => NativeDescription };
    return { loaded: true, ...addon.describe?.() };
  } catch (error) {
    problems.push(messageOf(error));
    return { loaded: false };
  }
}

interface SetUp {
  cacheFolder(env: NodeJS.ProcessEnv): string;
  isSupported(version: string): boolean;
  SUPPORTED: string;
}

/** The install script's own rules, so that there is one copy of them. */
async function setUp(): Promise<SetUp> {
  const load = async (file: string) => (await import(pathToFileURL(path.join(ROOT, 'scripts', file)).href)) as SetUp;
  return { ...(await load('libtorch_fetch.mjs')), ...(await load('libtorch_folder.mjs')) };
}

function notesOn(build: BuildInfo | undefined, addon: DoctorReport['addon'], rules: SetUp): string[] {
  const notes: string[] = [];
  const version = build?.libtorch?.version;
  if (version && !rules.isSupported(version)) {
    notes.push(`LibTorch ${version} is not one of ${rules.SUPPORTED}, which cellcam supports`);
  }
  if (!addon.loaded || addon.cuda !== false || !existsSync('/proc/driver/nvidia/version')) return notes;
  const cpuOnly = build?.libtorch?.variant === 'cpu';
  const reason = cpuOnly
    ? 'LibTorch is built for the CPU: set CELLCAM_TORCH and run npm rebuild cellcam'
    : 'LibTorch sees no device';
  return [...notes, `This machine has an NVIDIA driver, but ${reason}`];
}

/** Looks at the machine and the installation. Never throws: what is wrong is in `problems`. */
export async function doctor(): Promise<DoctorReport> {
  const problems: string[] = [];
  const addon = addonState(problems);
  const build = buildInfo();
  const rules = await setUp();
  const h5wasm = await dependency('h5wasm', () => import('h5wasm/node'), problems);
  const sharp = await dependency('sharp', () => import('sharp'), problems);
  const cpus = os.cpus();
  return {
    ok: problems.length === 0,
    problems,
    notes: notesOn(build, addon, rules),
    cellcam: VERSION,
    node: process.version,
    platform: `${process.platform} ${process.arch} ${os.release()}`,
    cpu: { model: cpus[0]?.model.trim() ?? 'unknown', cores: os.availableParallelism(), features: cpuFeatures() },
    memory: memory(),
    ...(build && { build }),
    addon,
    libuvThreads: Number(process.env['UV_THREADPOOL_SIZE']) || 4,
    ...(h5wasm && { h5wasm }),
    ...(sharp && { sharp }),
    cache: rules.cacheFolder(process.env),
  };
}
