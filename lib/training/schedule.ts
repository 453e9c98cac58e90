import { CellcamError } from '../errors';
import { requireNumber } from '../options';
import { ReduceLrOnPlateau, type PlateauState } from './plateau';

/** What a schedule needs to go on; plain JSON. */
export type ScheduleState = { kind: 'plateau'; plateau: PlateauState } | { kind: 'cosine' };

/** Learning rates of an epoch's steps, and how they follow the validation loss. */
export interface Schedule {
  /** One rate a step. */
  rates(epoch: number, steps: number): Float64Array;
  /** To be called once an epoch. */
  end(validationLoss: number): void;
  state(): ScheduleState;
}

/** One rate an epoch, lowered when the validation loss stops falling. */
class PlateauSchedule implements Schedule {
  constructor(private readonly plateau: ReduceLrOnPlateau) {}
  rates(_epoch: number, steps: number): Float64Array {
    return new Float64Array(steps).fill(this.plateau.state().lr);
  }
  end(validationLoss: number): void {
    this.plateau.step(validationLoss);
  }
  state(): ScheduleState {
    return { kind: 'plateau', plateau: this.plateau.state() };
  }
}

const WARM_UP_STEPS = 10;
const CONSTANT_SHARE = 0.3;
const LAST_SHARE = 0.01;

/** Ten steps of warm-up, constant to 30 % of the run, then a half cosine down to 1 %: for short runs from scratch. */
class CosineSchedule implements Schedule {
  constructor(
    private readonly lr: number,
    private readonly epochs: number,
  ) {}
  rates(epoch: number, steps: number): Float64Array {
    return Float64Array.from({ length: steps }, (_, i) => this.rate((epoch - 1) * steps + i, this.epochs * steps));
  }
  private rate(step: number, total: number): number {
    const warm = Math.min(1, (step + 1) / WARM_UP_STEPS);
    const late = Math.max(0, step / total - CONSTANT_SHARE) / (1 - CONSTANT_SHARE);
    return this.lr * warm * (LAST_SHARE + ((1 - LAST_SHARE) * (1 + Math.cos(Math.PI * late))) / 2);
  }
  end(): void {}
  state(): ScheduleState {
    return { kind: 'cosine' };
  }
}

export type ScheduleName = 'plateau' | 'cosine';

/** A schedule at its beginning, or where `state` left it. */
export function createSchedule(name: ScheduleName, o: { lr: number; epochs: number }, state?: ScheduleState): Schedule {
  requireNumber(o.lr, 'lr', Number.MIN_VALUE);
  if (state && state.kind !== name) {
    throw new CellcamError(
      'ERR_TRAINING',
      `Expected the state of a ${name} schedule but found one of a ${state.kind} schedule`,
    );
  }
  if (name === 'cosine') return new CosineSchedule(o.lr, o.epochs);
  const known = state?.kind === 'plateau' ? ReduceLrOnPlateau.from(state.plateau) : new ReduceLrOnPlateau({ lr: o.lr });
  return new PlateauSchedule(known);
}
