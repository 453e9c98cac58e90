// Loss curves of 200 optimiser steps from the same weights on the same batches, and of PyTorch from other weights: ours must lie as near to
// PyTorch's as runs of PyTorch lie to one another.
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { peerPrecision } from './network.mjs';
import { ROOT, peerScript } from './report.mjs';

/** One pass over the batches: single losses jump from batch to batch. */
const PASS = 16;

function smooth(losses) {
  return Array.from(
    { length: losses.length - PASS + 1 },
    (_, i) => losses.slice(i, i + PASS).reduce((a, b) => a + b) / PASS,
  );
}

/** Mean distance of two smoothed curves. */
function distance(a, b) {
  return a.reduce((sum, value, i) => sum + Math.abs(value - b[i]), 0) / a.length;
}

/** @returns results for `show`. Throws where ours lies further from PyTorch's than another seed does. */
export function measureCurve({ python, device, backbone, threads, precision, curveSteps = '200' }) {
  if (!python) throw new Error('Expected --peer: a curve is compared with PyTorch');
  execFileSync(process.execPath, ['scripts/build.mjs', '--bench'], {
    cwd: ROOT,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const common = [
    '--device',
    device,
    '--backbone',
    backbone,
    '--batch',
    '4',
    '--size',
    '128',
    '--threads',
    threads,
    '--steps',
    curveSteps,
  ];
  const losses = (program, args) => {
    const lines = execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
      .trim()
      .split('\n');
    const printed = JSON.parse(lines.at(-1));
    return { ...printed, losses: smooth(printed.losses) };
  };
  const start = performance.now();
  const { losses: own, precision: chosen } = losses(path.join(ROOT, 'build', 'cellcam_bench'), [
    'curve',
    ...common,
    '--precision',
    precision,
    '--seed',
    '1',
  ]);
  const seconds = (performance.now() - start) / 1e3;
  const [same, other] = ['1', '2'].map((seed) => {
    const options = [...common, '--precision', peerPrecision(chosen), '--seed', seed];
    return losses(python, [peerScript('network'), 'curve', 'tuned', ...options]).losses;
  });
  const [apart, spread] = [distance(own, same), distance(same, other)];
  const ends = [own, same, other].map((curve) => `${curve[0].toFixed(3)} to ${curve.at(-1).toFixed(3)}`);
  if (apart > spread)
    throw new Error(`the curve lies ${apart} from PyTorch's, two seeds of PyTorch ${spread}: ${ends}`);
  return [
    {
      what: 'curve',
      backbone,
      precision: chosen,
      per_s: Number(curveSteps) / seconds,
      unit: 'steps',
      step_s: seconds / Number(curveSteps),
      distance: apart,
      distance_of_seeds: spread,
      note: `${chosen}, mean distance to PyTorch's ${apart.toFixed(4)}, of its two seeds ${spread.toFixed(4)}; ${ends.join(', ')}`,
    },
  ];
}
