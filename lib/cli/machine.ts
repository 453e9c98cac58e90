import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import os from 'node:os';

const X86_FEATURES = ['avx2', 'avx512f', 'avx512_vnni', 'avx512_bf16', 'amx_bf16'];
const ARM_FEATURES = ['asimd', 'fphp', 'bf16', 'sve'];

/** Apple's names of the features of ARM_FEATURES. */
const APPLE = ['hw.optional.AdvSIMD', 'hw.optional.arm.FEAT_FP16', 'hw.optional.arm.FEAT_BF16'];

function sysctl(name: string): boolean {
  try {
    const told = execFileSync('sysctl', ['-n', name], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
    return told.trim() === '1';
  } catch {
    return false; // A kernel that does not know the name has no such unit.
  }
}

/** CPU features that decide how fast a network runs; empty where the system does not tell them. */
export function cpuFeatures(): Record<string, boolean> {
  const names = process.arch === 'arm64' ? ARM_FEATURES : X86_FEATURES;
  if (process.platform === 'darwin' && process.arch === 'arm64') {
    return Object.fromEntries(APPLE.map((key, i) => [names[i] ?? key, sysctl(key)]));
  }
  const info = '/proc/cpuinfo';
  if (!existsSync(info)) return {};
  const flags = /^(?:flags|Features)\s*:(.*)$/m.exec(readFileSync(info, 'utf8'))?.[1]?.split(/\s+/) ?? [];
  return Object.fromEntries(names.map((name) => [name, flags.includes(name)]));
}

/** Bytes of memory; `limit` is what this process may use, where that is less than there is. */
export function memory(): { total: number; free: number; limit?: number } {
  const total = os.totalmem();
  const limit = process.constrainedMemory() ?? 0;
  return { total, free: os.freemem(), ...(limit > 0 && limit < total ? { limit } : {}) };
}
