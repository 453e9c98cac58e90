// What of a model learns, how fast, and with which randomness.
import { PuzzleCam, Trainer, type PuzzleCamOptions, type TrainerOptions, type Weights } from '../../dist';

const SPEC = {
  classes: ['a', 'b'],
  negativeClass: null,
  channels: ['x', 'y'].map((name) => ({ name, suffix: name, mean: 0.5, std: 0.25 })),
  nucleusChannel: 'x',
  cellChannels: ['y'],
};
const IMAGES = { data: new Float32Array(2 * 2 * 64 * 64).map((_, i) => Math.sin(i * 0.7)), shape: [2, 2, 64, 64] };
const TARGETS = { data: Uint8Array.of(1, 0, 0, 1), shape: [2, 2] };

async function learned(
  o: Partial<PuzzleCamOptions> & { trainer?: Partial<TrainerOptions>; before?: (m: PuzzleCam) => void; steps?: number },
): Promise<{ from: Weights; to: Weights; losses: number[] }> {
  const { trainer: options, before, steps = 1, ...model } = o;
  using m = await PuzzleCam.forSpec(SPEC, { backbone: 'resnet18', device: 'cpu', seed: 2, ...model });
  before?.(m);
  using trainer = new Trainer({ model: m, spec: SPEC, precision: 'fp32', ...options });
  const from = m.weights();
  const losses: number[] = [];
  for (let i = 0; i < steps; i++) losses.push((await trainer.step(IMAGES, TARGETS, 1e-3)).total);
  return { from, to: m.weights(), losses };
}

/** The largest change of a tensor. */
function change({ from, to }: { from: Weights; to: Weights }, name: string): number {
  const [a, b] = [from[name]!.data as Float32Array, to[name]!.data as Float32Array];
  return a.reduce((most, v, i) => Math.max(most, Math.abs(v - b[i]!)), 0);
}

const HEAD = 'cnn1.mclassifier.weight';
const STEM = 'cnn1.mfeatures.conv1.weight';
const LAST = 'cnn1.mfeatures.layer4.0.downsample.0.weight';

test('frozen parameters stand still, unfrozen ones learn again', async () => {
  const frozen = await learned({
    before: (m) => {
      expect(m.freeze('cnn1.mfeatures.')).toBe(m.parameters().length - 1);
      expect(m.unfreeze('cnn1.mfeatures.layer4.')).toBeGreaterThan(5);
      expect(m.parameters().filter(({ trainable }) => !trainable).length).toBeGreaterThan(30);
    },
  });
  expect(change(frozen, STEM)).toBe(0);
  expect(change(frozen, LAST)).toBeGreaterThan(0);
  expect(change(frozen, HEAD)).toBeGreaterThan(0);
});

test('freezing nothing is an error', async () => {
  using m = await PuzzleCam.forSpec(SPEC, { backbone: 'resnet18', device: 'cpu' });
  expect(() => m.freeze('cnn2.')).toThrow(/prefix.*cnn2/);
});

test('groups have learning rates of their own', async () => {
  const groups = [
    { prefix: 'cnn1.mclassifier', factor: 10 },
    { prefix: 'cnn1.', factor: 0 },
  ];
  const moved = await learned({ trainer: { groups } });
  expect(change(moved, HEAD)).toBeCloseTo(1e-2, 4);
  expect(change(moved, STEM)).toBe(0);
  expect(() => new Trainer({ model: {} as PuzzleCam, groups })).toThrow('PuzzleCam');
});

test('dropout changes training only, and the same way in every run', async () => {
  const [with1, with2, without] = [
    await learned({ dropout: 0.5, steps: 3 }),
    await learned({ dropout: 0.5, steps: 3 }),
    await learned({ steps: 3 }),
  ];
  expect(with1.losses).toEqual(with2.losses);
  expect(with1.losses).not.toEqual(without.losses);
  using a = await PuzzleCam.forSpec(SPEC, { backbone: 'resnet18', device: 'cpu', seed: 2, dropout: 0.5 });
  using b = await PuzzleCam.forSpec(SPEC, { backbone: 'resnet18', device: 'cpu', seed: 2 });
  expect((await a.forward(IMAGES)).logits.data).toEqual((await b.forward(IMAGES)).logits.data);
  await expect(PuzzleCam.forSpec(SPEC, { backbone: 'resnet18', dropout: 1 })).rejects.toThrow('dropout');
});

test('a state that goes on from frozen parameters comes to the same bits', async () => {
  using m = await PuzzleCam.forSpec(SPEC, { backbone: 'resnet18', device: 'cpu', seed: 2 });
  using trainer = new Trainer({ model: m, spec: SPEC, precision: 'fp32' });
  m.freeze('cnn1.mfeatures.layer1.');
  await trainer.step(IMAGES, TARGETS, 1e-3);
  const state = trainer.state();
  m.unfreeze('cnn1.');
  await trainer.step(IMAGES, TARGETS, 1e-3);
  using n = await PuzzleCam.forSpec(SPEC, { backbone: 'resnet18', device: 'cpu', seed: 9 });
  using other = new Trainer({ model: n, spec: SPEC, precision: 'fp32' });
  await other.setState(state);
  await other.step(IMAGES, TARGETS, 1e-3);
  const name = 'cnn1.mfeatures.layer1.0.conv1.weight';
  for (const key of [name, LAST, HEAD]) expect(n.weights()[key]!.data).toEqual(m.weights()[key]!.data);
});
