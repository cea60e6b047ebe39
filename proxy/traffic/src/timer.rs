//! Deadlines of a worker's connections, without a timer per request.
//!
//! In: one [`Timer`] per connection task, whose deadline is set and cleared as often as needed (two words written).
//! Out: the task is woken once its deadline has passed, up to [`GRAIN`] late. A single task per thread scans the
//! deadlines; it sleeps until the earliest one, so an idle worker never wakes.

use std::cell::RefCell;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

/// How late a deadline may fire: scanning is batched.
pub const GRAIN: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Wheel {
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// When the scanning task will look next; `None`: it sleeps until told.
    next_scan: Option<Instant>,
    scanner: Option<Waker>,
}

#[derive(Default)]
struct Slot {
    deadline: Option<Instant>,
    waker: Option<Waker>,
}

thread_local! {
    static WHEEL: RefCell<Wheel> = RefCell::new(Wheel::default());
}

/// One deadline of one task; at most one is pending at a time.
///
/// It belongs to the thread that made it: used on another thread it would name another task's slot. Connection tasks
/// never leave their worker, which is what makes this sound.
#[derive(Debug)]
pub struct Timer {
    slot: usize,
    deadline: Option<Instant>,
}

impl Default for Timer {
    fn default() -> Self {
        Self::new()
    }
}

impl Timer {
    /// A timer with no deadline.
    pub fn new() -> Self {
        let slot = WHEEL.with_borrow_mut(|wheel| {
            wheel.free.pop().unwrap_or_else(|| {
                wheel.slots.push(Slot::default());
                wheel.slots.len() - 1
            })
        });
        Self { slot, deadline: None }
    }

    /// Sets or replaces the deadline; `None` clears it.
    pub fn set(&mut self, deadline: Option<Instant>) {
        if self.deadline == deadline {
            return;
        }
        self.deadline = deadline;
        let slot = self.slot;
        WHEEL.with_borrow_mut(|wheel| {
            if let Some(entry) = wheel.slots.get_mut(slot) {
                entry.deadline = deadline;
            }
            if let Some(deadline) = deadline
                && wheel.next_scan.is_none_or(|next| deadline < next)
                && let Some(scanner) = wheel.scanner.take()
            {
                scanner.wake();
            }
        });
    }

    /// The deadline as set.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the deadline has passed; otherwise the task of `cx` is woken when it has.
    pub fn poll_expired(&self, cx: &Context<'_>) -> bool {
        let Some(deadline) = self.deadline else { return false };
        WHEEL.with_borrow_mut(|wheel| {
            let Some(entry) = wheel.slots.get_mut(self.slot) else {
                return false;
            };
            // The scanner clears the slot when it fires, so no clock is read here in the ordinary case.
            if entry.deadline.is_none() {
                return Instant::now() >= deadline;
            }
            match &entry.waker {
                Some(waker) if waker.will_wake(cx.waker()) => {}
                _ => entry.waker = Some(cx.waker().clone()),
            }
            false
        })
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let slot = self.slot;
        // At thread exit the wheel may be gone already; then there is nothing to give back.
        let _gone = WHEEL.try_with(|wheel| {
            if let Ok(mut wheel) = wheel.try_borrow_mut() {
                if let Some(entry) = wheel.slots.get_mut(slot) {
                    *entry = Slot::default();
                }
                wheel.free.push(slot);
            }
        });
    }
}

/// The scanning task of a worker thread; run it once per worker, forever.
pub async fn scan() {
    loop {
        let sleep = std::future::poll_fn(|cx| {
            WHEEL.with_borrow_mut(|wheel| {
                let earliest = wheel.slots.iter().filter_map(|slot| slot.deadline).min();
                match earliest {
                    Some(at) => {
                        wheel.next_scan = Some(at);
                        wheel.scanner = Some(cx.waker().clone());
                        std::task::Poll::Ready(at)
                    }
                    None => {
                        wheel.next_scan = None;
                        wheel.scanner = Some(cx.waker().clone());
                        std::task::Poll::Pending
                    }
                }
            })
        })
        .await;
        let wake_at = tokio::time::Instant::from_std(sleep.max(Instant::now() + GRAIN));
        let sleeping = tokio::time::sleep_until(wake_at);
        tokio::pin!(sleeping);
        // An earlier deadline takes the scanner's waker: seen here as a wake with the waker gone.
        std::future::poll_fn(|cx| {
            use std::future::Future as _;
            if sleeping.as_mut().poll(cx).is_ready() || WHEEL.with_borrow(|wheel| wheel.scanner.is_none()) {
                return std::task::Poll::Ready(());
            }
            std::task::Poll::Pending
        })
        .await;
        fire(Instant::now());
    }
}

/// Wakes every task that waits for a deadline, due or not: something changed that all of them want to know.
pub fn wake_all() {
    let waiting: Vec<Waker> =
        WHEEL.with_borrow(|wheel| wheel.slots.iter().filter_map(|slot| slot.waker.clone()).collect());
    for waker in waiting {
        waker.wake();
    }
}

fn fire(now: Instant) {
    let mut due: Vec<Waker> = Vec::new();
    WHEEL.with_borrow_mut(|wheel| {
        for slot in &mut wheel.slots {
            if slot.deadline.is_some_and(|deadline| deadline <= now) {
                slot.deadline = None;
                due.extend(slot.waker.take());
            }
        }
    });
    for waker in due {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn expired(timer: &Timer) {
        std::future::poll_fn(|cx| {
            if timer.poll_expired(cx) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
    }

    #[tokio::test]
    async fn later_deadlines_do_not_hide_earlier_ones() {
        let scanner = tokio::spawn(scan());
        let (mut long, mut short) = (Timer::new(), Timer::new());
        long.set(Some(Instant::now() + Duration::from_secs(600)));
        tokio::task::yield_now().await;
        let begin = Instant::now();
        short.set(Some(begin + Duration::from_millis(30)));
        expired(&short).await;
        let took = begin.elapsed();
        assert!(
            took >= Duration::from_millis(30) && took < Duration::from_secs(5),
            "{took:?}"
        );
        assert!(long.deadline().is_some());
        scanner.abort();
    }

    #[tokio::test]
    async fn cleared_deadline_never_fires() {
        let scanner = tokio::spawn(scan());
        let mut timer = Timer::new();
        timer.set(Some(Instant::now() + Duration::from_millis(10)));
        timer.set(None);
        let fired = tokio::time::timeout(Duration::from_millis(80), expired(&timer)).await;
        assert!(fired.is_err());
        scanner.abort();
    }
}
