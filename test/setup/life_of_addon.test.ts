// What may happen to the addon in a program: threads, garbage collection, exits. Each in a process of its own, as a crash ends it.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runNode, type Ended, type RunOptions } from '../cli/run_cellcam';

const PACKAGE = JSON.stringify(join(__dirname, '..', '..', 'dist'));
const MODEL = `{ backbone: 'resnet18', numClasses: 3, inChannels: 2, device: 'cpu', seed: 5 }`;
const IMAGES = `{ data: new Float32Array(2 * 2 * 64 * 64).map((_, i) => Math.sin(i)), shape: [2, 2, 64, 64] }`;

function run(program: string, flags: string[] = [], o: RunOptions = {}): Promise<Ended> {
  return runNode([...flags, '-e', program], o);
}

test('two worker threads at once come to the same numbers as the main thread', async () => {
  const job = `
    const { PuzzleCam, Trainer } = require(${PACKAGE});
    module.exports = async () => {
      const model = await PuzzleCam.create(${MODEL});
      const trainer = new Trainer({ model, precision: 'fp32', spec: { classes: ['a', 'b', 'c'], negativeClass: null,
        channels: require(${PACKAGE}).HPA.channels.slice(1, 3), nucleusChannel: 'blue', cellChannels: ['green'] } });
      const targets = { data: Uint8Array.of(1, 0, 0, 0, 1, 1), shape: [2, 3] };
      const losses = [];
      for (let i = 0; i < 3; i++) losses.push((await trainer.step(${IMAGES}, targets)).total);
      const { logits } = await model.forward(${IMAGES});
      trainer.dispose();
      model.dispose();
      return JSON.stringify([losses, Array.from(logits.data)]);
    };`;
  const program = `
    const { Worker } = require('node:worker_threads');
    const source = ${JSON.stringify(job)};
    const inWorker = () => new Promise((resolve, reject) => {
      const worker = new Worker(source + "module.exports().then((r) => require('node:worker_threads').parentPort.postMessage(r));", { eval: true });
      worker.once('message', resolve).once('error', reject);
    });
    const here = { exports: {} };
    new Function('module', 'require', source)(here, require);
    Promise.all([inWorker(), inWorker(), here.exports()]).then(([a, b, c]) => console.log(a === b && b === c, a));`;
  const ended = await run(program);
  expect(ended).toMatchObject({ code: 0, signal: null, stderr: '' });
  expect(ended.stdout).toMatch(/^true \[\[/);
});

test('objects that nobody holds are collected, also while their jobs run', async () => {
  const program = `
    const { PuzzleCam } = require(${PACKAGE});
    const { memoryUsage } = process;
    (async () => {
      const settled = [];
      for (let i = 0; i < 30; i++) {
        settled.push(PuzzleCam.create(${MODEL}).then((model) => model.forward(${IMAGES})));
        global.gc();
        if (i % 5 === 4) await Promise.all(settled.splice(0));
      }
      global.gc();
      await new Promise((resolve) => setTimeout(resolve, 50));
      global.gc();
      console.log(memoryUsage().external < 100e6); // 45 MB of weights each
    })();`;
  expect(await run(program, ['--expose-gc'])).toMatchObject({ code: 0, signal: null, stdout: 'true\n', stderr: '' });
});

test('dispose in the middle of a job lets it end; twice is as good as once', async () => {
  const program = `
    const { PuzzleCam } = require(${PACKAGE});
    (async () => {
      const model = await PuzzleCam.create(${MODEL});
      const running = model.forward(${IMAGES}, { tiled: true });
      model.dispose();
      model.dispose();
      console.log((await running).maps.shape.join());
      await model.forward(${IMAGES}).catch(({ code }) => console.log(code));
    })();`;
  expect(await run(program)).toMatchObject({ code: 0, signal: null, stdout: '2,3,2,2\nERR_DISPOSED\n', stderr: '' });
});

test('exit and the end of a worker thread in the middle of a job', async () => {
  const exits = `
    const { PuzzleCam } = require(${PACKAGE});
    PuzzleCam.create(${MODEL}).then((model) => { void model.forward(${IMAGES}); setImmediate(() => process.exit(3)); });`;
  expect(await run(exits)).toMatchObject({ code: 3, signal: null, stderr: '' });
  const terminates = `
    const { Worker } = require('node:worker_threads');
    const worker = new Worker(${JSON.stringify(`
      const { PuzzleCam } = require(${PACKAGE});
      PuzzleCam.create(${MODEL}).then((model) => {
        void model.forward(${IMAGES});
        require('node:worker_threads').parentPort.postMessage('begun');
      });`)}, { eval: true });
    worker.once('message', () => worker.terminate().then(() => console.log('terminated')));`;
  expect(await run(terminates)).toMatchObject({ code: 0, signal: null, stdout: 'terminated\n', stderr: '' });
});

describe('a predictor', () => {
  const folder = mkdtempSync(join(tmpdir(), 'cellcam-life-'));
  afterAll(() => rmSync(folder, { recursive: true }));
  const WEIGHTS = JSON.stringify(join(folder, 'weights.safetensors'));
  const LIBUVS = { env: { CELLCAM_ONE_THREAD: '0' } };

  const predicting = (then: string) => `
    const { HPA, PuzzleCam, Predictor } = require(${PACKAGE});
    const spec = { classes: ['a', 'b', 'c'], negativeClass: null, channels: HPA.channels.slice(1, 3), nucleusChannel: 'blue', cellChannels: ['green'] };
    const batch = (seed) => ({ data: Uint8Array.from({ length: 2 * 256 * 256 * 2 }, (_, i) => (i * seed) % 251), shape: [2, 256, 256, 2] });
    PuzzleCam.create(${MODEL})
      .then((model) => model.saveWeights(${WEIGHTS}))
      .then(() => Predictor.create({ backbone: 'resnet18', weights: [${WEIGHTS}], device: 'cpu', precision: 'fp32', spec }))
      .then(async (predictor) => { ${then} });`;

  test('tells all who ask at once the same on its one thread as on theirs', async () => {
    const program = predicting(`
      const all = await Promise.all([3, 5, 7, 11, 13].map((seed) => predictor.predict(batch(seed))));
      const after = await predictor.predict(batch(3));
      predictor.dispose();
      console.log(JSON.stringify([...all, after].map(({ logits, maps }) => [...logits.data, ...maps.data])));`);
    const one = await run(program);
    expect(one).toMatchObject({ code: 0, signal: null, stderr: '' });
    const told = JSON.parse(one.stdout) as number[][];
    expect(told[5]).toEqual(told[0]);
    expect(told[1]).not.toEqual(told[0]);
    expect(await run(program, [], LIBUVS)).toEqual(one);
  });

  test.each([
    ['one thread', {}],
    ["libuv's", LIBUVS],
  ])('exit while further predictions run and wait, on %s', async (_, options) => {
    const program = predicting(`
      await Promise.race([3, 5, 7, 11].map((seed) => predictor.predict(batch(seed))));
      process.exit(3);`);
    expect(await run(program, [], options)).toMatchObject({ code: 3, signal: null, stderr: '' });
  });
});
