// Training steps and predictions, ours and the peers' in turns within one run, on the same weights and images.
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { ROOT, median, peerScript, ratios } from './report.mjs';

/** A process that takes steps when asked to: bench/peers/network.py and native/bench/network.cpp say how. */
class Stepper {
  constructor(name, program, args, env = {}) {
    this.name = name;
    this.process = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, ...env } });
    this.process.stdin.on('error', () => undefined); // it has ended: `next` says so
    this.errors = '';
    this.process.stderr.on('data', (text) => (this.errors = (this.errors + text).slice(-4000)));
    this.lines = createInterface({ input: this.process.stdout })[Symbol.asyncIterator]();
    this.process.on('error', (error) => (this.errors = error.message));
  }

  /** The next line that is JSON: compilers print others. */
  async next() {
    for (;;) {
      const { value, done } = await this.lines.next();
      if (done) throw new Error(`${this.name} ended: ${this.errors.trim().split('\n').at(-1) || 'without a word'}`);
      if (value.startsWith('{')) return JSON.parse(value);
    }
  }

  async ready() {
    Object.assign(this, await this.next());
    return this;
  }

  async seconds(steps) {
    this.process.stdin.write(`${steps}\n`);
    return (await this.next()).seconds;
  }

  async end() {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return;
    const closed = once(this.process, 'close');
    this.process.stdin.end();
    await closed;
  }
}

/** How far figures may lie apart: arithmetic of 8 bits, and losses after one, two and three optimiser steps from there. */
const ALLOWED = {
  fp32: [1e-4, 1e-2, 3e-2],
  int16: [1e-4, 1e-2, 3e-2],
  bf16: [1e-2, 3e-2, 6e-2],
  fp16: [3e-3, 3e-2, 6e-2],
};

/**
 * That of tuned peers where ours is `own`: bfloat16 is their best only on a CPU that multiplies it faster than float32, as ours has found out, and
 * products of integers they have none.
 */
export function peerPrecision(own) {
  return own === 'int16' ? 'fp32' : own;
}

/** Both compute the same thing, or the comparison is void. */
function requireEqual(what, own, peer) {
  const limits = ALLOWED[own.precision === 'fp32' ? peer.precision : own.precision];
  const scale = what === 'infer' ? Math.max(...own.check.slice(0, -1).map(Math.abs)) : 1;
  own.check.forEach((value, i) => {
    const last = i === own.check.length - 1;
    const limit = what === 'infer' ? limits[0] * (last ? value : 2 * scale) : limits[i] * Math.abs(value);
    if (Math.abs(value - peer.check[i]) > limit) {
      throw new Error(`void: cellcam and ${peer.name} do not compute the same: ${own.check} and ${peer.check}`);
    }
  });
}

async function rounds(steppers, { rounds, steps }) {
  const seconds = new Map(steppers.map((s) => [s, []]));
  for (const stepper of steppers) await stepper.seconds(2); // warm
  for (let round = 0; round < rounds; round++) {
    const order = steppers.map((_, i) => steppers[(i + round) % steppers.length]);
    for (const stepper of order) seconds.get(stepper).push(median(await stepper.seconds(steps)));
  }
  return seconds;
}

/** Ours with one thing changed: a switch of the environment, as CELLCAM_WINOGRAD=0, or precision=fp32. */
function changed(change, program, args) {
  const [, name, value] = /^(CELLCAM_\w+|precision)=(\w+)$/.exec(change) ?? [];
  if (name === undefined)
    throw new Error(`Expected --beside with CELLCAM_NAME=0 or precision=NAME, but received '${change}'`);
  const stepper =
    name === 'precision'
      ? new Stepper(change, program, [...args, '--precision', value])
      : new Stepper(change, program, args, { [name]: value });
  stepper.title = `cellcam, ${change}`;
  return stepper;
}

/** @returns results for `show`: ours, then ours with each change and each peer, with our speed over theirs. */
export async function measureNetwork(o) {
  execFileSync(process.execPath, ['scripts/build.mjs', '--bench'], {
    cwd: ROOT,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const common = [
    '--device',
    o.device,
    '--backbone',
    o.backbone,
    '--batch',
    o.batch,
    '--size',
    o.size,
    '--threads',
    o.threads,
  ];
  const program = path.join(ROOT, 'build', 'cellcam_bench');
  const args = [o.what, ...common, '--precision', o.precision];
  const own = new Stepper('cellcam', program, args);
  const all = [own];
  const add = async (stepper) => {
    all.push(stepper);
    requireEqual(o.what, own, await stepper.ready());
  };
  try {
    await own.ready();
    for (const change of o.changes) await add(changed(change, program, args));
    for (const mode of o.modes) {
      const precision = mode === 'eager' ? [] : ['--precision', peerPrecision(own.precision)];
      const peer = new Stepper(mode, o.python, [peerScript('network'), o.what, mode, ...common, ...precision]);
      await add(peer);
      peer.title = `PyTorch ${peer.torch}, ${mode}, ${peer.precision}`;
    }
    const seconds = await rounds(all, o);
    return all.map((stepper) => {
      const step = median(seconds.get(stepper));
      return {
        what: o.what,
        ...(stepper === own ? {} : { peer: stepper.title }),
        backbone: o.backbone,
        device: o.device,
        precision: stepper.precision,
        batch: Number(o.batch),
        size: Number(o.size),
        threads: Number(o.threads),
        per_s: Number(o.batch) / step,
        step_s: step,
        ...(stepper === own ? {} : ratios(seconds.get(own), seconds.get(stepper))),
        note:
          stepper === own ? `${o.backbone}, ${o.batch} x ${o.size}², ${stepper.precision}, ${o.threads} threads` : '',
      };
    });
  } finally {
    await Promise.all(all.map((stepper) => stepper.end()));
  }
}
