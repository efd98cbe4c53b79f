"""Which fields of the API's structs work, which are refused, and which are taken although nothing here acts on them.

A row per struct, by its short name in the schema, so that a pod in a template is the same as a pod. A test holds that
every field of these structs is in exactly one table; other structs work as a whole, or are of a field that is below.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ignored:
    """`why` completes "has no effect: …". What equals one of `neutral` asks for what is the case anyway."""

    why: str
    neutral: tuple[Any, ...] = ()


_CONTAINER = """args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe
    resizePolicy resources restartPolicy securityContext startupProbe stdin stdinOnce terminationMessagePath
    terminationMessagePolicy tty volumeMounts workingDir"""

WORKS: dict[str, str] = {
    "PodSpec": """activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy
        enableServiceLinks ephemeralContainers hostAliases hostname imagePullSecrets initContainers nodeName
        nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates resources restartPolicy
        runtimeClassName schedulerName schedulingGates securityContext serviceAccount serviceAccountName
        setHostnameAsFQDN shareProcessNamespace subdomain terminationGracePeriodSeconds tolerations
        topologySpreadConstraints volumes""",
    "Container": _CONTAINER,
    "EphemeralContainer": """args command env envFrom image imagePullPolicy name securityContext stdin stdinOnce
        targetContainerName terminationMessagePath terminationMessagePolicy tty volumeMounts workingDir""",
    "SecurityContext": """allowPrivilegeEscalation capabilities privileged procMount readOnlyRootFilesystem runAsGroup
        runAsNonRoot runAsUser seccompProfile""",
    "PodSecurityContext": """fsGroup runAsGroup runAsNonRoot runAsUser seccompProfile supplementalGroups sysctls""",
    "Probe": """exec failureThreshold grpc httpGet initialDelaySeconds periodSeconds successThreshold tcpSocket
        terminationGracePeriodSeconds timeoutSeconds""",
    "Lifecycle": "postStart preStop stopSignal",
    "VolumeMount": "mountPath mountPropagation name readOnly subPath subPathExpr",
    "ContainerPort": "containerPort hostIP hostPort name protocol",
    "Volume": "configMap csi downwardAPI emptyDir name nfs persistentVolumeClaim projected secret",
    "EmptyDirVolumeSource": "medium sizeLimit",
    "PodAffinityTerm": "labelSelector matchLabelKeys mismatchLabelKeys namespaceSelector namespaces topologyKey",
    "TopologySpreadConstraint": """labelSelector matchLabelKeys maxSkew minDomains nodeAffinityPolicy nodeTaintsPolicy
        topologyKey whenUnsatisfiable""",
    "ServiceSpec": """allocateLoadBalancerNodePorts clusterIP clusterIPs externalName ipFamilies ipFamilyPolicy
        loadBalancerClass ports publishNotReadyAddresses selector sessionAffinity type""",
    "ServicePort": "appProtocol name nodePort port protocol targetPort",
    "EndpointSlice": "addressType endpoints ports",
    "Endpoint": "addresses conditions hostname nodeName targetRef zone",
    "PersistentVolumeSpec": """accessModes capacity claimRef csi mountOptions nfs nodeAffinity
        persistentVolumeReclaimPolicy storageClassName""",
    "PersistentVolumeClaimSpec": "accessModes resources selector storageClassName volumeName",
    "StorageClass": "provisioner reclaimPolicy volumeBindingMode",
    "PriorityClass": "description globalDefault preemptionPolicy value",
    "RuntimeClass": "overhead scheduling",
    "ResourceQuotaSpec": "hard scopeSelector scopes",
    "LimitRangeItem": "default defaultRequest max maxLimitRequestRatio min type",
    "ServiceAccount": "automountServiceAccountToken imagePullSecrets secrets",
    "NodeSpec": "podCIDR podCIDRs providerID taints unschedulable",
    "DeploymentSpec": """minReadySeconds paused progressDeadlineSeconds replicas revisionHistoryLimit selector strategy
        template""",
    "ReplicaSetSpec": "minReadySeconds replicas selector template",
    "StatefulSetSpec": """minReadySeconds ordinals persistentVolumeClaimRetentionPolicy podManagementPolicy replicas
        revisionHistoryLimit selector serviceName template updateStrategy volumeClaimTemplates""",
    "DaemonSetSpec": "minReadySeconds revisionHistoryLimit selector template updateStrategy",
    "JobSpec": """activeDeadlineSeconds backoffLimit backoffLimitPerIndex completionMode completions managedBy
        manualSelector maxFailedIndexes parallelism podFailurePolicy podReplacementPolicy selector successPolicy suspend
        template ttlSecondsAfterFinished""",
    "CronJobSpec": """concurrencyPolicy failedJobsHistoryLimit jobTemplate schedule startingDeadlineSeconds
        successfulJobsHistoryLimit suspend timeZone""",
    "PodDisruptionBudgetSpec": "maxUnavailable minAvailable selector unhealthyPodEvictionPolicy",
    "LeaseSpec": """acquireTime holderIdentity leaseDurationSeconds leaseTransitions preferredHolder renewTime
        strategy""",
}

_MACHINE = "a pod is a virtual machine and shares no namespace with the host"
_NO_BLOCK = "Cuboid has no raw block volumes"
_WINDOWS = "a pod is a Linux machine"
_NO_DEBUG = "an ephemeral container has none"
_VOLUMES = "Cuboid has no volumes of this kind"

REFUSED: dict[str, dict[str, str]] = {
    "PodSpec": {
        "hostIPC": _MACHINE, "hostNetwork": _MACHINE, "hostPID": _MACHINE,
        "resourceClaims": "Cuboid has no dynamic resource allocation",
    },
    "Container": {"volumeDevices": _NO_BLOCK},
    "EphemeralContainer": {
        **dict.fromkeys((
            "lifecycle", "livenessProbe", "ports", "readinessProbe", "resizePolicy", "resources", "restartPolicy",
            "startupProbe",
        ), _NO_DEBUG),
        "volumeDevices": _NO_BLOCK,
    },
    "SecurityContext": {"windowsOptions": _WINDOWS},
    "PodSecurityContext": {"windowsOptions": _WINDOWS},
    "Volume": {
        **dict.fromkeys((
            "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "ephemeral", "fc", "flexVolume",
            "flocker", "gcePersistentDisk", "gitRepo", "glusterfs", "image", "iscsi", "photonPersistentDisk",
            "portworxVolume", "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
        ), _VOLUMES),
        "hostPath": "a pod sees nothing of the host's files",
    },
}  # fmt: skip

_SELINUX = "the kernel of a pod's machine has no SELinux"
_APPARMOR = "the kernel of a pod's machine has no AppArmor"
_NO_BALANCER = "there is no load balancer: such a service is reached at its port of the machine itself"
_UNSERVED = "no machine can serve a volume of this kind, a pod that claims it fails"
_CLASSES = "there are no volume attributes classes"
_RULES = "what becomes of a container is decided by the restart policy alone"

IGNORED: dict[str, dict[str, Ignored]] = {
    "PodSpec": {
        "evictionResponders": Ignored("nobody is asked before an eviction but disruption budgets"),
        "hostUsers": Ignored("a pod is a virtual machine and has users of its own in any case", (True,)),
        "hostnameOverride": Ignored("the name of a pod's machine comes from `hostname`, or is the pod's"),
        "schedulingGroup": Ignored("pods are placed one by one"),
    },
    "Container": {
        "restartPolicyRules": Ignored(_RULES),
    },
    "EphemeralContainer": {"restartPolicyRules": Ignored(_RULES)},
    "SecurityContext": {
        "appArmorProfile": Ignored(_APPARMOR, ({"type": "Unconfined"},)),
        "seLinuxOptions": Ignored(_SELINUX),
    },
    "PodSecurityContext": {
        "appArmorProfile": Ignored(_APPARMOR, ({"type": "Unconfined"},)),
        "fsGroupChangePolicy": Ignored("files of a volume get the group at every start", ("Always",)),
        "seLinuxChangePolicy": Ignored(_SELINUX),
        "seLinuxOptions": Ignored(_SELINUX),
        "supplementalGroupsPolicy": Ignored("groups that the image names are always added", ("Merge",)),
    },
    "VolumeMount": {
        "bindMountOptions": Ignored("a mount has the options of its volume"),
        "recursiveReadOnly": Ignored("nothing is mounted below a volume", ("Disabled",)),
    },
    "EmptyDirVolumeSource": {"mode": Ignored("the folder has mode 0777")},
    "ServiceSpec": {
        "externalIPs": Ignored("whoever may write a service could take over any address with them (CVE-2020-8554)"),
        "externalTrafficPolicy": Ignored("every node leads to every pod", ("Cluster",)),
        "healthCheckNodePort": Ignored("nobody answers there"),
        "internalTrafficPolicy": Ignored("every node leads to every pod", ("Cluster",)),
        "loadBalancerIP": Ignored(_NO_BALANCER),
        "loadBalancerSourceRanges": Ignored("whoever reaches the machine reaches the port: close it at a firewall"),
        "sessionAffinityConfig": Ignored(
            "a client keeps its pod for as long as the service has the same pods",
            ({"clientIP": {"timeoutSeconds": 10_800}},),
        ),
        "trafficDistribution": Ignored("pods are picked at random, wherever they are"),
    },
    "Endpoint": {
        "deprecatedTopology": Ignored("it is of a former version of the API"),
        "hints": Ignored("pods are picked at random, wherever they are"),
    },
    "PersistentVolumeSpec": {
        **dict.fromkeys((
            "awsElasticBlockStore", "azureDisk", "azureFile", "cephfs", "cinder", "fc", "flexVolume", "flocker",
            "gcePersistentDisk", "glusterfs", "hostPath", "iscsi", "local", "photonPersistentDisk", "portworxVolume",
            "quobyte", "rbd", "scaleIO", "storageos", "vsphereVolume",
        ), Ignored(_UNSERVED)),
        "volumeAttributesClassName": Ignored(_CLASSES),
        "volumeMode": Ignored(_NO_BLOCK, ("Filesystem",)),
    },
    "PersistentVolumeClaimSpec": {
        "dataSource": Ignored("no volume is made for a claim with a source; one that exists may be bound"),
        "dataSourceRef": Ignored("no volume is made for a claim with a source; one that exists may be bound"),
        "volumeAttributesClassName": Ignored(_CLASSES),
        "volumeMode": Ignored(_NO_BLOCK, ("Filesystem",)),
    },
    "StorageClass": {
        "allowVolumeExpansion": Ignored("volumes keep their size", (False,)),
        "allowedTopologies": Ignored("a volume is made on the node of its first pod"),
        "mountOptions": Ignored("volumes that are made for claims have none"),
        "parameters": Ignored("volumes that are made for claims have none"),
    },
    "RuntimeClass": {"handler": Ignored("every pod is a machine of Cuboid", ("cuboid",))},
    "NodeSpec": {
        "configSource": Ignored("it is of a former version of the API"),
        "externalID": Ignored("it is of a former version of the API"),
        "podPreemptionPolicy": Ignored("pods are preempted by their priority alone"),
    },
    "JobSpec": {"scheduling": Ignored("pods are placed one by one")},
    "Ingress": {"spec": Ignored("no ingress controller is part of Cuboid: it needs one that watches this API")},
    "IngressClass": {"spec": Ignored("no ingress controller is part of Cuboid: it needs one that watches this API")},
    "NetworkPolicy": {"spec": Ignored("Cuboid keeps network policies and does not enforce them")},
    "HorizontalPodAutoscaler": {"spec": Ignored("Cuboid keeps autoscalers, and nothing scales by them")},
}  # fmt: skip
