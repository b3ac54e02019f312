// Requests that end: a node that is stopped, or a connection that is dead, answers nothing for ever.

const SECONDS = 30;
/** For what the node works on before it answers, and for images on a slow line. */
export const LONG_SECONDS = 120;

/** Fetch, with a deadline that holds for the reading of the answer, too. */
export async function request(address, { seconds = SECONDS, ...options } = {}) {
  try {
    return await fetch(address, { ...options, signal: AbortSignal.timeout(1000 * seconds) });
  } catch (error) {
    if (error.name !== "TimeoutError") throw error;
    throw new Error(`The node did not answer within ${seconds} s.`, { cause: error });
  }
}
