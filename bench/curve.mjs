// Loss curves of 200 optimiser steps on the same batches, ours and PyTorch's (as the original ran it, and tuned), from the weights of some seeds:
// ours must lie as near to PyTorch's from the same weights as PyTorch's lie to one another from different ones, on average. One pair of curves
// decides little where rounding alone, PyTorch's own too, moves them about as far as other weights do.
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

const mean = (values) => values.reduce((a, b) => a + b) / values.length;

const WAYS = ['eager', 'tuned'];

/** @returns results for `show`. Throws where ours lies further from PyTorch's than other seeds of PyTorch's do. */
export function measureCurve({ python, device, backbone, threads, precision, seeds: list, curveSteps = '200' }) {
  if (!python) throw new Error('Expected --peer: a curve is compared with PyTorch');
  const seeds = list.split(',');
  if (new Set(seeds).size < 2) throw new Error(`Expected --seeds with two or more seeds, but received '${list}'`);
  execFileSync(process.execPath, ['scripts/build.mjs', '--bench'], {
    cwd: ROOT,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const common = ['--device', device, '--backbone', backbone, '--batch', '4', '--size', '128', '--threads', threads];
  const run = (program, args, seed) => {
    const options = [...common, '--steps', curveSteps, '--seed', seed];
    const output = execFileSync(program, [...args, ...options], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const printed = JSON.parse(output.trim().split('\n').at(-1));
    return { ...printed, losses: smooth(printed.losses), seed };
  };

  const start = performance.now();
  const own = seeds.map((seed) =>
    run(path.join(ROOT, 'build', 'cellcam_bench'), ['curve', '--precision', precision], seed),
  );
  const seconds = (performance.now() - start) / 1e3 / seeds.length;
  const chosen = own[0].precision;
  const peers = seeds.flatMap((seed) =>
    WAYS.map((way) => {
      const options = way === 'eager' ? [] : ['--precision', peerPrecision(chosen)];
      return run(python, [peerScript('network'), 'curve', way, ...options], seed);
    }),
  );
  const distances = (a, b, wanted) =>
    a.flatMap((x) => b.filter((y) => wanted(x, y)).map((y) => distance(x.losses, y.losses)));
  const apart = distances(own, peers, (x, y) => x.seed === y.seed);
  const spread = distances(peers, peers, (x, y) => seeds.indexOf(x.seed) < seeds.indexOf(y.seed));
  const described = [apart, spread].map(
    (each) => `${mean(each).toFixed(4)} (${Math.min(...each).toFixed(4)} to ${Math.max(...each).toFixed(4)})`,
  );
  const ends = [...own, ...peers].map(({ losses }) => `${losses[0].toFixed(3)} to ${losses.at(-1).toFixed(3)}`);
  const note = `${chosen}, mean distance to PyTorch's ${described[0]}, of its seeds ${list} ${described[1]}; ${ends.join(', ')}`;
  // NaN fails too.
  if (!(mean(apart) <= mean(spread)))
    throw new Error(`the curve of ${backbone} lies further from PyTorch's than its seeds do: ${note}`);
  return [
    {
      what: 'curve',
      backbone,
      precision: chosen,
      per_s: Number(curveSteps) / seconds,
      unit: 'steps',
      step_s: seconds / Number(curveSteps),
      distance: mean(apart),
      distance_of_seeds: mean(spread),
      note,
    },
  ];
}
