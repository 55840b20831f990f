// Cases are functions that throw; what failed is told to the test that opened the page.

const cases = [];

export function test(name, work) {
  cases.push({ name, work });
}

export function equal(found, wanted, about = "") {
  const [first, second] = [JSON.stringify(plain(found)), JSON.stringify(plain(wanted))];
  if (first !== second) {
    throw new Error(`${about} found ${first}, wanted ${second}`);
  }
}

export function near(found, wanted, tolerance, about = "") {
  if (!(Math.abs(found - wanted) <= tolerance)) {
    throw new Error(`${about} found ${found}, wanted ${wanted} within ${tolerance}`);
  }
}

/** Numbers from 0 to below 1 that are the same for the same seed. */
export function draws(seed) {
  let state = seed + 0x9e3779b9;
  return () => {
    state = Math.imul(state ^ (state >>> 15), 0x85ebca6b) + 0x27d4eb2f;
    return ((state ^ (state >>> 13)) >>> 0) / 2 ** 32;
  };
}

function plain(value) {
  return ArrayBuffer.isView(value) ? [...value] : value;
}

export async function runAll() {
  const failures = [];
  for (const { name, work } of cases) {
    try {
      await work();
    } catch (error) {
      failures.push(`${name}: ${error.message}`);
    }
  }
  return { count: cases.length, failures };
}
