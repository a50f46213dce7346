//! A single-threaded executor in virtual time. Tasks are polled in the order in which they were woken,
//! so a run of it is the same each time. There is no tokio runtime inside; what tokio offers without a
//! runtime (`tokio::sync`) works.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::net::HostId;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Locks `mutex`. A task that panicked ends the run anyway, so poison tells nothing new.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What wakers and spawners reach: everything that may change while a task is being polled.
#[derive(Default)]
struct Queue {
    ready: VecDeque<u64>,
    spawned: Vec<(u64, Option<HostId>, Task)>,
    aborted: Vec<u64>,
    next: u64,
}

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    queue: Arc<Mutex<Queue>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            lock(&self.queue).ready.push_back(self.id);
        }
    }
}

struct Slot {
    host: Option<HostId>,
    task: Task,
    waker: Arc<TaskWaker>,
}

/// The tasks of a world.
#[derive(Default)]
pub struct Exec {
    queue: Arc<Mutex<Queue>>,
    tasks: BTreeMap<u64, Slot>,
    frozen: BTreeSet<HostId>,
    /// Woken tasks of frozen hosts, in the order of their waking.
    held: Vec<u64>,
    polls: u64,
}

/// The bound of [`Exec::run`] was reached while tasks were still ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Livelock {
    /// How many polls there were.
    pub polls: usize,
    /// Hosts of the tasks that were still ready; `None` for tasks of no host.
    pub hosts: BTreeSet<Option<HostId>>,
}

impl std::fmt::Display for Livelock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (polls, hosts) = (self.polls, &self.hosts);
        write!(
            f,
            "livelock: {polls} polls at one instant of virtual time and tasks of hosts {hosts:?} still \
             ask for more; most likely a future wakes itself without waiting for anything"
        )
    }
}

impl Exec {
    /// A handle that spawns tasks of no host.
    #[must_use]
    pub fn spawner(&self) -> Spawner {
        Spawner { queue: self.queue.clone(), host: None }
    }

    /// A handle that spawns tasks of `host`: they stop with it when it is frozen, and are dropped when
    /// it crashes.
    #[must_use]
    pub fn spawner_of(&self, host: HostId) -> Spawner {
        Spawner { queue: self.queue.clone(), host: Some(host) }
    }

    /// Polls ready tasks, and those that they make ready, until none is left. Returns how many polls.
    ///
    /// # Errors
    /// [`Livelock`] if `polls_max` was not enough.
    pub fn run(&mut self, polls_max: usize) -> Result<usize, Livelock> {
        let mut polls = 0;
        while let Some(id) = self.pop() {
            if polls == polls_max {
                lock(&self.queue).ready.push_front(id);
                return Err(self.livelock(polls));
            }
            polls += 1;
            self.poll(id);
        }
        self.polls += polls as u64;
        Ok(polls)
    }

    /// True if a task could be polled now.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let queue = lock(&self.queue);
        !queue.ready.is_empty() || !queue.spawned.is_empty()
    }

    /// Tasks that have not ended, frozen ones included.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tasks.len() + lock(&self.queue).spawned.len()
    }

    /// Stops polling the tasks of `host` until [`Exec::thaw`].
    pub fn freeze(&mut self, host: HostId) {
        self.frozen.insert(host);
    }

    /// Polls the tasks of `host` again.
    pub fn thaw(&mut self, host: HostId) {
        self.frozen.remove(&host);
        lock(&self.queue).ready.extend(self.held.drain(..));
    }

    /// Drops all tasks of `host`, as when its process dies.
    pub fn kill(&mut self, host: HostId) {
        self.adopt();
        let (dead, alive) = std::mem::take(&mut self.tasks).into_iter().partition(|(_, slot)| slot.host == Some(host));
        self.tasks = alive;
        self.frozen.remove(&host);
        // Destructors may wake and spawn: the queue is not locked here.
        drop::<BTreeMap<_, _>>(dead);
    }

    fn poll(&mut self, id: u64) {
        let Some(slot) = self.tasks.get_mut(&id) else {
            return;
        };
        // Before the poll: a wake during it must queue the task again.
        slot.waker.queued.store(false, Ordering::Relaxed);
        let waker = Waker::from(slot.waker.clone());
        if slot.task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.tasks.remove(&id);
        }
    }

    /// The next task to poll.
    fn pop(&mut self) -> Option<u64> {
        loop {
            self.adopt();
            let id = lock(&self.queue).ready.pop_front()?;
            match self.tasks.get(&id) {
                Some(slot) if slot.host.is_some_and(|host| self.frozen.contains(&host)) => {
                    self.held.push(id);
                }
                Some(_) => return Some(id),
                None => {}
            }
        }
    }

    /// Takes over what was spawned and drops what was aborted.
    fn adopt(&mut self) {
        let (spawned, aborted) = {
            let mut queue = lock(&self.queue);
            let spawned = std::mem::take(&mut queue.spawned);
            (spawned, std::mem::take(&mut queue.aborted))
        };
        for (id, host, task) in spawned {
            let waker = Arc::new(TaskWaker { id, queued: AtomicBool::new(true), queue: self.queue.clone() });
            self.tasks.insert(id, Slot { host, task, waker });
        }
        for id in aborted {
            self.tasks.remove(&id);
        }
    }

    fn livelock(&self, polls: usize) -> Livelock {
        let queue = lock(&self.queue);
        let hosts = queue.ready.iter().filter_map(|id| self.tasks.get(id).map(|slot| slot.host)).collect();
        Livelock { polls, hosts }
    }
}

/// Spawns tasks, from inside tasks too.
#[derive(Clone)]
pub struct Spawner {
    queue: Arc<Mutex<Queue>>,
    host: Option<HostId>,
}

impl Spawner {
    /// Starts a task. Dropping the handle detaches it.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let slot = Arc::new(Mutex::new(JoinSlot { output: None, waker: None }));
        let result = slot.clone();
        let task = Box::pin(async move {
            let output = future.await;
            let mut slot = lock(&result);
            slot.output = Some(output);
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        });
        let id = self.push(task);
        JoinHandle { id, slot, queue: self.queue.clone() }
    }

    /// Starts a boxed task without a handle.
    pub fn spawn_boxed(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        self.push(task);
    }

    fn push(&self, task: Task) -> u64 {
        let mut queue = lock(&self.queue);
        let id = queue.next;
        queue.next += 1;
        queue.spawned.push((id, self.host, task));
        queue.ready.push_back(id);
        id
    }
}

struct JoinSlot<T> {
    output: Option<T>,
    waker: Option<Waker>,
}

/// Waits for the end of a task and gives its output.
///
/// If the task was dropped (its host crashed, or [`JoinHandle::abort`]), waiting never ends: ask
/// [`JoinHandle::take`] instead where that can happen.
pub struct JoinHandle<T> {
    id: u64,
    slot: Arc<Mutex<JoinSlot<T>>>,
    queue: Arc<Mutex<Queue>>,
}

impl<T> JoinHandle<T> {
    /// The output, if the task has ended and it was not taken yet.
    pub fn take(&self) -> Option<T> {
        lock(&self.slot).output.take()
    }

    /// True if the output can be taken.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        lock(&self.slot).output.is_some()
    }

    /// Drops the task at the next poll of the executor.
    pub fn abort(&self) {
        lock(&self.queue).aborted.push(self.id);
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut slot = lock(&self.slot);
        match slot.output.take() {
            Some(output) => Poll::Ready(output),
            None => {
                slot.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[derive(Debug, Default)]
struct Timers {
    now: Duration,
    next: u64,
    sleepers: BTreeMap<(Duration, u64), Waker>,
}

/// Virtual time: how long the world has run. Clones tell the same time.
#[derive(Debug, Clone, Default)]
pub struct Clock(Arc<Mutex<Timers>>);

impl Clock {
    /// Virtual time since the start of the world.
    #[must_use]
    pub fn now(&self) -> Duration {
        lock(&self.0).now
    }

    /// Waits for `duration` of virtual time.
    #[must_use]
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now().saturating_add(duration))
    }

    /// Waits until the world has run for `at`.
    #[must_use]
    pub fn sleep_until(&self, at: Duration) -> Sleep {
        Sleep { clock: self.clone(), at, key: None }
    }

    /// Runs `future` for at most `duration` of virtual time; `None` if that was not enough.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Option<F::Output> {
        let (mut future, mut sleep) = (pin!(future), pin!(self.sleep(duration)));
        poll_fn(|context| {
            if let Poll::Ready(output) = future.as_mut().poll(context) {
                return Poll::Ready(Some(output));
            }
            sleep.as_mut().poll(context).map(|()| None)
        })
        .await
    }

    /// When the next sleeper wakes.
    pub(crate) fn next_wake(&self) -> Option<Duration> {
        let timers = lock(&self.0);
        timers.sleepers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Sets the time and wakes whoever slept until then, the earliest first.
    pub(crate) fn advance(&self, now: Duration) {
        lock(&self.0).now = now;
        loop {
            let waker = {
                let mut timers = lock(&self.0);
                match timers.sleepers.first_entry() {
                    Some(entry) if entry.key().0 <= now => entry.remove(),
                    _ => return,
                }
            };
            waker.wake();
        }
    }
}

/// See [`Clock::sleep`].
#[derive(Debug)]
pub struct Sleep {
    clock: Clock,
    at: Duration,
    key: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let sleep = &mut *self;
        let mut timers = lock(&sleep.clock.0);
        if let Some(key) = sleep.key.take() {
            timers.sleepers.remove(&key);
        }
        if timers.now >= sleep.at {
            return Poll::Ready(());
        }
        let key = (sleep.at, timers.next);
        timers.next += 1;
        timers.sleepers.insert(key, context.waker().clone());
        sleep.key = Some(key);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            lock(&self.clock.0).sleepers.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn log() -> (Arc<Mutex<Vec<u32>>>, impl Fn(u32) + Clone + Send + 'static) {
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = log.clone();
        (log, move |n| lock(&sink).push(n))
    }

    #[test]
    fn sleepers_wake_in_the_order_of_their_deadlines() {
        let (mut exec, clock) = (Exec::default(), Clock::default());
        let (log, note) = log();
        for n in [3, 1, 2] {
            let (clock, note) = (clock.clone(), note.clone());
            exec.spawner().spawn(async move {
                clock.sleep(n * MS).await;
                note(n);
            });
        }
        exec.run(100).expect("no livelock");
        assert_eq!(clock.next_wake(), Some(MS));
        clock.advance(2 * MS);
        exec.run(100).expect("no livelock");
        assert_eq!(*lock(&log), [1, 2]);
        clock.advance(3 * MS);
        exec.run(100).expect("no livelock");
        assert_eq!(*lock(&log), [1, 2, 3]);
        assert_eq!(exec.count(), 0);
    }

    #[test]
    fn join_handles_give_the_output_and_tasks_spawn_tasks() {
        let mut exec = Exec::default();
        let spawner = exec.spawner();
        let handle = exec.spawner().spawn(async move {
            let inner = spawner.spawn(async { 40 });
            inner.await + 2
        });
        exec.run(100).expect("no livelock");
        assert_eq!(handle.take(), Some(42));
    }

    #[test]
    fn a_task_that_wakes_itself_for_ever_is_reported() {
        let mut exec = Exec::default();
        let host = HostId(7);
        exec.spawner_of(host).spawn(poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        let livelock = exec.run(1000).expect_err("it never ends");
        assert_eq!(livelock.polls, 1000);
        assert!(livelock.hosts.contains(&Some(host)));
    }

    #[test]
    fn frozen_tasks_wait_and_killed_ones_are_dropped() {
        let mut exec = Exec::default();
        let (log, note) = log();
        let sink = note.clone();
        exec.freeze(HostId(1));
        exec.spawner_of(HostId(1)).spawn(async move { note(1) });
        exec.spawner_of(HostId(2)).spawn(async move { sink(2) });
        exec.run(100).expect("no livelock");
        assert_eq!(*lock(&log), [2]);
        exec.thaw(HostId(1));
        exec.run(100).expect("no livelock");
        assert_eq!(*lock(&log), [2, 1]);

        let alive = Arc::new(());
        let held = alive.clone();
        exec.spawner_of(HostId(3)).spawn(async move {
            std::future::pending::<()>().await;
            drop(held);
        });
        exec.run(100).expect("no livelock");
        assert_eq!(Arc::strong_count(&alive), 2);
        exec.kill(HostId(3));
        assert_eq!(Arc::strong_count(&alive), 1);
    }

    #[test]
    fn timeout_gives_up_at_the_exact_time() {
        let (mut exec, clock) = (Exec::default(), Clock::default());
        let timer = clock.clone();
        let never = std::future::pending::<()>();
        let handle = exec.spawner().spawn(async move { timer.timeout(5 * MS, never).await });
        exec.run(100).expect("no livelock");
        clock.advance(5 * MS - Duration::from_nanos(1));
        exec.run(100).expect("no livelock");
        assert!(!handle.is_finished());
        clock.advance(5 * MS);
        exec.run(100).expect("no livelock");
        assert_eq!(handle.take(), Some(None));
        assert_eq!(clock.next_wake(), None);
    }
}
