import { ReduceLrOnPlateau, type PlateauState } from '../../dist/training/plateau';
import { fixture, readJson } from '../reference_cases';

interface Sequence {
  name: string;
  initial_lr: number;
  losses: (number | string)[];
  lr_used_in_epoch: number[];
  lr_after_step: number[];
  num_bad_epochs_after_step: number[];
  best_after_step: (number | string)[];
}

const { sequences } = readJson<{ sequences: Sequence[] }>(fixture('training', 'plateau.json'));

describe('ReduceLrOnPlateau', () => {
  it.each([
    [{ lr: 0 }, 'lr'],
    [{ lr: NaN }, 'lr'],
    [{ lr: 1, factor: 1 }, 'factor'],
    [{ lr: 1, factor: 0 }, 'factor'],
    [{ lr: 1, patience: -1 }, 'patience'],
    [{ lr: 1, minLr: -1 }, 'minLr'],
  ])('refuses %p', (options, name) => {
    expect(() => new ReduceLrOnPlateau(options)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG' }) as Error);
    expect(() => new ReduceLrOnPlateau(options)).toThrow(name);
  });

  it('refuses states and losses that are none', () => {
    const state = new ReduceLrOnPlateau({ lr: 1 }).state();
    expect(() => ReduceLrOnPlateau.from(null as unknown as PlateauState)).toThrow('state');
    expect(() => ReduceLrOnPlateau.from({ lr: 1 } as PlateauState)).toThrow('state');
    expect(() => ReduceLrOnPlateau.from({ ...state, bad: -1 })).toThrow('bad');
    expect(() => ReduceLrOnPlateau.from({ ...state, best: NaN })).toThrow('best');
    expect(() => new ReduceLrOnPlateau({ lr: 1 }).step('1' as unknown as number)).toThrow('loss');
  });

  it.each(sequences.map((s) => [s.name, s] as const))('follows %s', (_, sequence) => {
    let plateau = new ReduceLrOnPlateau({ lr: sequence.initial_lr });
    const used = sequence.losses.map((loss, i) => {
      const lr = plateau.state().lr;
      expect(plateau.step(Number(loss))).toBe(sequence.lr_after_step[i]);
      expect(plateau.state().bad).toBe(sequence.num_bad_epochs_after_step[i]);
      expect(plateau.state().best ?? Infinity).toBe(Number(sequence.best_after_step[i]));
      // Every epoch goes through JSON, as a run that is stopped and resumed each time.
      plateau = ReduceLrOnPlateau.from(JSON.parse(JSON.stringify(plateau.state())) as PlateauState);
      return lr;
    });
    expect(used).toEqual(sequence.lr_used_in_epoch);
  });

  it('never takes NaN for an improvement', () => {
    const plateau = new ReduceLrOnPlateau({ lr: 1, patience: 0 });
    expect(plateau.step(NaN)).toBe(0.3);
    expect(plateau.state().best).toBeNull();
    expect(plateau.step(5)).toBe(0.3);
    expect(plateau.step(NaN)).toBeCloseTo(0.09, 15);
  });

  it('makes no change of 1e-8 or less and never raises the rate', () => {
    expect(new ReduceLrOnPlateau({ lr: 1.005e-6, patience: 0 }).step(NaN)).toBe(1.005e-6);
    expect(new ReduceLrOnPlateau({ lr: 1.02e-6, patience: 0 }).step(NaN)).toBe(1e-6);
    expect(new ReduceLrOnPlateau({ lr: 1e-7, patience: 0 }).step(NaN)).toBe(1e-7);
  });
});
