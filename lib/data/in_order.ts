import { codeOf, messageOf } from '../errors';
import { throwIfAborted } from '../options';

/** What became of an item: a value, or the error that its work threw. */
export type Outcome<T, R> = { item: T; value: R } | { item: T; error: unknown };

async function outcomeOf<T, R>(item: T, work: (item: T) => Promise<R>): Promise<Outcome<T, R>> {
  try {
    return { item, value: await work(item) };
  } catch (error) {
    return { item, error };
  }
}

/** @throws what the item's work threw */
export function valueOf<R>(outcome: Outcome<unknown, R>): R {
  if ('error' in outcome) throw outcome.error;
  return outcome.value;
}

/** Works on up to `width` items at any time; outcomes come in the order of the items. Whoever sees it end sees no more work going on. */
export async function* inOrder<T, R>(
  items: readonly T[],
  width: number,
  work: (item: T) => Promise<R>,
  signal?: AbortSignal,
): AsyncGenerator<Outcome<T, R>> {
  const running: Promise<Outcome<T, R>>[] = [];
  try {
    for (const item of items) {
      throwIfAborted(signal);
      running.push(outcomeOf(item, work));
      if (running.length >= width) yield await running.shift()!;
    }
    while (running.length > 0) yield await running.shift()!;
  } finally {
    await Promise.all(running);
  }
}

/** The reason if it is this field's files that are wrong; every other error is thrown on. */
export function refusal(error: unknown): string {
  const code = codeOf(error);
  if (code === 'ERR_IMAGE' || code === 'ERR_FILE_NOT_FOUND') return messageOf(error);
  throw error;
}
