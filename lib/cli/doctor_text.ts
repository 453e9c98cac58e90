import type { DoctorReport } from './doctor';

function gibibytes(bytes: number): string {
  return `${(bytes / 1024 ** 3).toFixed(1)} GiB`;
}

function featureText(features: Record<string, boolean>): string {
  const names = Object.entries(features).map(([name, has]) => (has ? name : `no ${name}`));
  return names.length > 0 ? names.join(', ') : 'not told by this system';
}

function libtorchText({ build }: DoctorReport): string {
  const found = build?.libtorch;
  return found ? `${found.version} (${found.variant}) in ${found.dir}, from ${found.source}` : 'none';
}

function addonText({ addon, build }: DoctorReport): string {
  return addon.loaded ? `loaded${build?.builder ? `, built by ${build.builder} at ${build.when}` : ''}` : 'not loaded';
}

function memoryText({ memory: { total, free, limit } }: DoctorReport): string {
  const text = `${gibibytes(total)}, ${gibibytes(free)} free`;
  return limit === undefined ? text : `${text}, limited to ${gibibytes(limit)}`;
}

/** Aligned plain text; the last line says whether all is well. */
export function formatDoctor(report: DoctorReport): string {
  const { addon, cpu } = report;
  const rows: [string, string][] = [
    ['cellcam', report.cellcam],
    ['Node', `${report.node}, ${report.platform}`],
    ['CPU', `${cpu.model}, ${cpu.cores} cores`],
    ['CPU features', featureText(cpu.features)],
    ['memory', memoryText(report)],
    ['LibTorch', libtorchText(report)],
    ['addon', addonText(report)],
  ];
  if (addon.torch !== undefined) rows.push(['LibTorch runs', `${addon.torch}, ${addon.threads} threads`]);
  if (addon.devices) rows.push(['devices', addon.devices.join(', ')]);
  if (addon.cpuPrecision !== undefined) rows.push(['CPU precision', `${addon.cpuPrecision}, where auto is asked for`]);
  rows.push(['image threads', `${report.libuvThreads} (UV_THREADPOOL_SIZE)`]);
  rows.push(['h5wasm', report.h5wasm ?? 'missing'], ['sharp', report.sharp ?? 'missing'], ['cache', report.cache]);
  const lines = rows.map(([name, value]) => `${name.padEnd(17)}${value}`);
  for (const note of report.notes) lines.push('', `Note: ${note}`);
  for (const problem of report.problems) lines.push('', `Problem: ${problem}`);
  const found = report.problems.length;
  return [...lines, '', found === 0 ? 'All is well.' : `${found} problem${found === 1 ? '' : 's'} found.`].join('\n');
}
