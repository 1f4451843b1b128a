//! The one background thread of all upstreams: a keeper for each that is in force.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::{Builder, LocalOptions},
    sync::watch,
    task::{AbortHandle, spawn_local},
};

use super::{cluster::Cluster, keeper};

/// How long a start, or a reload, waits for names to be resolved.
const PATIENCE: Duration = Duration::from_secs(3);

/// A hold on the thread; it ends when this is dropped.
#[derive(Debug)]
pub struct Supervisor {
    clusters: watch::Sender<Vec<Arc<Cluster>>>,
}

impl Supervisor {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread was to be had.
    pub fn start() -> io::Result<Self> {
        let (clusters, changes) = watch::channel(Vec::new());
        thread::Builder::new()
            .name("upstreams".to_owned())
            .spawn(move || {
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .build_local(LocalOptions::default());
                match runtime {
                    Ok(runtime) => runtime.block_on(supervise(changes)),
                    Err(error) => tracing::error!(%error, "upstreams are neither checked nor resolved"),
                }
            })?;
        Ok(Self { clusters })
    }

    /// Keeps these upstreams from now on, and no others. Returns when every name was asked for once, or after
    /// some seconds; blocks until then.
    pub fn keep(&self, clusters: &[Arc<Cluster>]) {
        self.clusters.send_replace(clusters.to_vec());
        let deadline = Instant::now() + PATIENCE;
        for cluster in clusters {
            if !cluster.wait_settled(deadline) {
                tracing::warn!(upstream = cluster.config().name, "names are not resolved yet");
            }
        }
    }
}

async fn supervise(mut changes: watch::Receiver<Vec<Arc<Cluster>>>) {
    let mut kept: Vec<(Arc<Cluster>, AbortHandle)> = Vec::new();
    let random = RandomState::new();
    loop {
        let wanted = changes.borrow_and_update().clone();
        kept.retain(|(cluster, task)| {
            let stays = wanted.iter().any(|wanted| Arc::ptr_eq(wanted, cluster));
            if !stays {
                task.abort();
            }
            stays
        });
        for cluster in wanted {
            if !kept.iter().any(|(kept, _)| Arc::ptr_eq(kept, &cluster)) {
                let mut hasher = random.build_hasher();
                hasher.write_usize(kept.len());
                let task = spawn_local(keeper::keep(Arc::clone(&cluster), hasher.finish()));
                kept.push((cluster, task.abort_handle()));
            }
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}
